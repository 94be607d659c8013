"""The Configure Language LoRA node: the settings of a training of a language model, generated from the schema."""

from .comfy_io import CATEGORY, LanguageConfig, TextDataset, io
from .configuring import config_outputs, configured, setting_inputs, yaml_input
from .options import values_of
from .text_datasets import TASK
from .widgets import refuse_unknown_inputs


class CrucibleConfigureLanguageLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleConfigureLanguageLoRA",
            display_name="Configure Language LoRA (Crucible)",
            category=CATEGORY,
            description=(
                "The settings of a training of a language model that most people change. You can leave everything as "
                "it is: every setting on auto gets a value that fits your rows and your model. Connect dataset and "
                "clip, and the summary shows these values and the reasons for them. All other settings are on the "
                "nodes for options."
            ),
            search_aliases=["language model", "llm", "training settings", "learning rate", "rank"],
            inputs=[
                *setting_inputs(TASK),
                TextDataset.Input("dataset", optional=True, tooltip="Lets the summary show what suits these rows."),
                io.Clip.Input("clip", optional=True, tooltip="Lets the summary show what suits this language model."),
                yaml_input(),
            ],
            outputs=config_outputs(LanguageConfig, "Train Language LoRA (Crucible)"),
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, options=None, dataset=None, clip=None, config_yaml="", **widgets):
        from ..trainer.doctor.requirements import require_packages

        require_packages()
        refuse_unknown_inputs(cls)

        def known(config):
            return (dataset, None, ()) if clip is None else _looked_at(clip, dataset, config)

        return configured(TASK, widgets | values_of(options), config_yaml, known)


def _looked_at(clip, dataset, config):
    """Return the dataset as a language model reads it, the facts about the model and the warnings about it."""
    from ..trainer.training.regularization import with_prompts_to_answer
    from .language_models import language_model

    if dataset is None:
        base_model = language_model(clip)
        return None, base_model.facts, base_model.warnings()
    base_model = language_model(clip, dataset.row_settings)
    rendered = base_model.prepare_dataset(with_prompts_to_answer(base_model, dataset, config))
    rendered.require_trainable()
    return rendered, base_model.facts, base_model.warnings()
