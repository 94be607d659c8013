"""The settings of a training as a node. Its widgets come from the config's schema."""

from ..trainer.config import SETTINGS, DataSettings, from_widgets
from .comfy_io import CATEGORY, Config, io
from .widgets import widget

ON_OTHER_NODES = {"base_model", "output_dir", "output_name", *DataSettings.model_fields}


class CrucibleConfigureLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleConfigureLoRA",
            display_name="Configure LoRA (Crucible)",
            category=CATEGORY,
            description=(
                "How to train. 0 or auto leaves a value to the training, which finds one that fits the model and the "
                "images and says so in its report."
            ),
            search_aliases=["training settings", "learning rate", "rank"],
            inputs=[widget(setting) for setting in _shown_settings()],
            outputs=[
                Config.Output("config"),
                io.String.Output("summary", tooltip="The settings in words; auto where the training will choose."),
            ],
        )

    @classmethod
    def execute(cls, **widgets):
        config = from_widgets(widgets)
        chosen = {name: getattr(config, name) for name in widgets}
        lines = [f"{name}: {'auto' if value is None else value}" for name, value in chosen.items()]
        return io.NodeOutput(config, "\n".join(lines))


def _shown_settings():
    """The classic canvas shows rarely used widgets too: they come last."""
    shown = [setting for name, setting in SETTINGS.items() if name not in ON_OTHER_NODES]
    return sorted(shown, key=lambda setting: setting.advanced)
