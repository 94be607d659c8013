"""The Configure LoRA node: the training settings. Its widgets are generated from the config's schema."""

from .comfy_io import CATEGORY, Config, Dataset, io
from .options import TrainingOptions, settings_of, values_of
from .widgets import refuse_unknown_inputs, widget


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
                *(widget(setting) for setting in settings_of("main")),
                TrainingOptions.Input(
                    "options", optional=True, tooltip="All other settings, from the nodes for options, in a chain."
                ),
                Dataset.Input("dataset", optional=True, tooltip="Lets the summary show what suits these images."),
                io.Model.Input("model", optional=True, tooltip="Lets the summary show what suits this model."),
                io.String.Input(
                    "config_yaml",
                    optional=True,
                    force_input=True,
                    display_name="settings as YAML",
                    tooltip=(
                        "The text of a config file, for example from ComfyUI's node for multiline text. Its values "
                        "replace those of widgets that are on auto or at their default. If you changed a widget and "
                        "the YAML has a different value for it, you get an error that names both. Settings that belong "
                        "to other nodes, such as train_data_dir, are ignored."
                    ),
                ),
            ],
            outputs=[
                Config.Output("config", tooltip="The settings, for Train LoRA (Crucible)."),
                io.String.Output("summary", tooltip="The settings in words, with the reason for each auto value."),
                io.String.Output("yaml", tooltip="The settings as a config file for python -m trainer train."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, options=None, dataset=None, model=None, config_yaml="", **widgets):
        from ..trainer.doctor.requirements import require_packages

        require_packages()
        from ..trainer.config.widgets_and_yaml import from_widgets_and_yaml, split_of_other_nodes
        from ..trainer.planning.summary import summarise

        refuse_unknown_inputs(cls)
        widgets |= values_of(options)
        config, elsewhere = split_of_other_nodes(from_widgets_and_yaml(widgets, config_yaml))
        facts, warnings = (None, ()) if model is None else _looked_at(model)
        summary = summarise(config, dataset, facts, warnings, elsewhere)
        return io.NodeOutput(config, summary.text, summary.yaml, ui={"auto": [summary.chosen]})


def _looked_at(model):
    from ..trainer.models.comfyui.model import model_facts
    from ..trainer.models.comfyui.suitability import warnings_of

    return model_facts(model), warnings_of(model)
