"""The Configure LoRA node: the training settings. Its widgets are generated from the config's schema."""

from .comfy_io import CATEGORY, Config, Dataset, io
from .configuring import config_outputs, configured, setting_inputs, yaml_input
from .options import values_of
from .widgets import refuse_unknown_inputs

TASK = "text-to-image"


class CrucibleConfigureLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleConfigureLoRA",
            display_name="Configure LoRA (Crucible)",
            category=CATEGORY,
            description=(
                "The training settings that most people change. You can leave everything as it is: every setting on "
                "auto gets a value that fits your purpose, images and model. Connect dataset and model, and the "
                "summary shows these values and the reasons for them. All other settings are on the nodes for options."
            ),
            search_aliases=["training settings", "learning rate", "rank", "preset"],
            inputs=[
                *setting_inputs(TASK),
                Dataset.Input("dataset", optional=True, tooltip="Lets the summary show what suits these images."),
                io.Model.Input("model", optional=True, tooltip="Lets the summary show what suits this model."),
                yaml_input(),
            ],
            outputs=config_outputs(Config, "Train LoRA (Crucible)"),
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, options=None, dataset=None, model=None, config_yaml="", **widgets):
        from ..trainer.doctor.requirements import require_packages

        require_packages()
        refuse_unknown_inputs(cls)
        known = (dataset, *((None, ()) if model is None else _looked_at(model)))
        return configured(TASK, widgets | values_of(options), config_yaml, lambda config: known)


def _looked_at(model):
    from ..trainer.models.comfyui.model import model_facts
    from ..trainer.models.comfyui.suitability import warnings_of

    return model_facts(model), warnings_of(model)
