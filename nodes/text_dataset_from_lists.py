"""The Text Dataset from Lists node: makes a dataset of texts from the texts of any other nodes."""

from ..trainer.config import from_widgets
from .comfy_io import CATEGORY, io
from .options import values_of
from .text_datasets import TASK, dataset_outputs, reading_inputs, reported, row_inputs
from .widgets import refuse_unknown_inputs


class CrucibleTextDatasetFromLists(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleTextDatasetFromLists",
            display_name="Text Dataset from Lists (Crucible)",
            category=CATEGORY,
            description=(
                "Makes a dataset for a language model from lists of texts that other nodes give, such as the tags and "
                "the captions that two Auto Caption nodes write for the same images: the model then learns to turn "
                "such tags into such captions."
            ),
            search_aliases=["prompts", "answers", "captions to prompts", "prompt enhancer", "llm dataset", "strings"],
            is_input_list=True,
            inputs=[
                io.String.Input(
                    "prompts",
                    optional=True,
                    force_input=True,
                    tooltip=(
                        "What the model is asked: one prompt for each answer in the same order, or a single one for "
                        "all of them."
                    ),
                ),
                io.String.Input(
                    "answers",
                    optional=True,
                    force_input=True,
                    tooltip="What the model learns to answer. Only the answers are trained.",
                ),
                io.String.Input(
                    "texts",
                    optional=True,
                    force_input=True,
                    tooltip="Texts that are trained whole, instead of prompts and answers.",
                ),
                *row_inputs(),
                *reading_inputs(),
            ],
            outputs=dataset_outputs(),
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, prompts=None, answers=None, texts=None, options=None, clip=None, **widgets):
        from ..trainer.doctor.requirements import require_packages

        require_packages()
        refuse_unknown_inputs(cls)
        from ..trainer.data.text.from_lists import text_dataset_from_lists

        values = {name: values[0] for name, values in widgets.items()}
        config = from_widgets({**values, **values_of((options or [None])[0]), "task_type": TASK})
        dataset = text_dataset_from_lists(config, prompts or [], answers or [], texts or [])
        return reported(dataset, None if clip is None else clip[0])
