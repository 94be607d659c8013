"""The settings of a training as a node. Its widgets come from the config's schema."""

from ..trainer.config import SETTINGS, from_widgets
from .comfy_io import CATEGORY, Config, io

ON_OTHER_NODES = {"base_model", "train_data_dir", "trigger_word", "resolution", "output_dir", "output_name"}

SAMPLERS = {"sample_sampler": "SAMPLERS", "sample_scheduler": "SCHEDULERS"}


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
            inputs=[_widget(setting) for setting in _shown_settings()],
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


def _widget(setting):
    shared = {
        "display_name": setting.title.lower(),
        "tooltip": setting.description + (" 0 = auto." if setting.is_number and setting.may_be_auto else ""),
        "advanced": setting.advanced or None,
    }
    if setting.name in SAMPLERS:
        import comfy.samplers

        options = getattr(comfy.samplers.KSampler, SAMPLERS[setting.name])
        return io.Combo.Input(setting.name, options=options, default=setting.widget_default, **shared)
    if setting.kind == "choice":
        return io.Combo.Input(setting.name, options=list(setting.choices), default=setting.widget_default, **shared)
    if setting.kind == "switch":
        return io.Boolean.Input(setting.name, default=setting.widget_default, **shared)
    if setting.kind == "text":
        return io.String.Input(setting.name, default=setting.widget_default, multiline=setting.multiline, **shared)
    number = io.Int if setting.kind == "integer" else io.Float
    if setting.name == "seed":
        # Else ComfyUI changes the seed after every run, and the next one trains from scratch.
        shared["control_after_generate"] = False
    return number.Input(
        setting.name,
        default=setting.widget_default,
        min=setting.widget_minimum,
        # JavaScript's numbers are exact up to here.
        max=min(setting.maximum, 2**53 - 1),
        step=setting.step,
        **shared,
    )
