"""The Load Text Dataset node: reads and checks a file or folder of rows for a language model."""

from ..trainer.config import from_widgets
from .comfy_io import CATEGORY, io
from .folders import DEMO, dataset_folder, pasted_folder
from .options import values_of
from .text_datasets import TASK, dataset_outputs, reading_inputs, reported, row_inputs
from .text_files import text_choices
from .widgets import refuse_unknown_inputs

NONE = "none"


class CrucibleLoadTextDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        choices = text_choices()
        return io.Schema(
            node_id="CrucibleLoadTextDataset",
            display_name="Load Text Dataset (Crucible)",
            category=CATEGORY,
            description=(
                "Loads rows for a language model from a file or a folder, such as prompts with answers, chats or plain "
                "texts, and checks them before anything is trained. Connect a CLIP, and the report shows what the "
                "model reads of a row, with what is trained marked."
            ),
            search_aliases=["jsonl", "csv", "rows", "prompts", "instruction", "llm dataset"],
            inputs=[
                io.Combo.Input(
                    "train_data_dir",
                    options=choices,
                    default=DEMO,
                    optional=True,
                    display_name="file or folder",
                    tooltip=(
                        "The file with your rows (.jsonl, .json, .csv, .tsv, .txt or .md), or a folder of such files, "
                        "inside ComfyUI's input folder or a registered datasets folder. Press R if a new one is "
                        "missing from the list. demo stands for 60 rows that come with this pack."
                    ),
                ),
                io.String.Input(
                    "path",
                    default="",
                    optional=True,
                    tooltip=(
                        "The full path of any file or folder on this computer, used instead of the one chosen above. "
                        "Only works while other computers cannot reach this ComfyUI."
                    ),
                ),
                *row_inputs(),
                io.Combo.Input(
                    "reg_data_dir",
                    options=[NONE, *choices],
                    default=NONE,
                    optional=True,
                    display_name="regularization",
                    tooltip=(
                        "A file or folder of rows of what the model should not forget, mixed in with yours. With "
                        "regularization rows on, only their prompts are used, and the model itself answers them. demo "
                        "stands for prompts to the demo language model."
                    ),
                ),
                *reading_inputs(),
            ],
            outputs=dataset_outputs(),
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, train_data_dir=DEMO, reg_data_dir=NONE, path="", **_):
        from ..trainer.data.listing import signature

        if train_data_dir is None or path is None:  # the value comes from another node, whose own inputs decide
            return ""
        read = [_rows(train_data_dir, path), _regularization(reg_data_dir)]
        return [one if one in ("", DEMO) else signature(one) for one in read]

    @classmethod
    def execute(cls, train_data_dir=DEMO, path="", reg_data_dir=NONE, options=None, clip=None, **widgets):
        from ..trainer.doctor.requirements import require_packages

        require_packages()
        refuse_unknown_inputs(cls)
        from ..trainer.data.text.load import load_text_dataset

        read = {"train_data_dir": _rows(train_data_dir, path), "reg_data_dir": _regularization(reg_data_dir)}
        dataset = load_text_dataset(from_widgets({**widgets, **values_of(options), **read, "task_type": TASK}))
        return reported(dataset, clip)


def _rows(train_data_dir, path):
    return pasted_folder(path) if path.strip() else dataset_folder(train_data_dir)


def _regularization(reg_data_dir):
    return "" if reg_data_dir in (NONE, None) else dataset_folder(reg_data_dir)
