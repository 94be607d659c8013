"""What the nodes that make datasets of texts have in common: the settings of rows, their outputs and their report."""

from .comfy_io import TextDataset, io, ui
from .options import TextOptions, settings_of
from .widgets import widget

TASK = "text-generation"

FOLDERS = ("train_data_dir", "reg_data_dir")
"""The settings without a generated widget: files and folders are chosen from lists."""


def row_inputs():
    """Return the inputs for the settings of rows that most people change."""
    return [widget(setting) for setting in settings_of("dataset", TASK) if setting.name not in FOLDERS]


def reading_inputs():
    """Return the inputs for all other settings of rows, and for the language model that is to read them."""
    return [
        TextOptions.Input("options", optional=True, tooltip="From Text Options."),
        io.Clip.Input(
            "clip",
            optional=True,
            tooltip="With it, the report counts tokens, and shows rows as this language model reads them.",
        ),
    ]


def dataset_outputs():
    """Return the outputs for a dataset and its report."""
    return [
        TextDataset.Output("dataset", tooltip="For Train Language LoRA (Crucible)."),
        io.String.Output("report", tooltip="What the rows are, what of them is trained, any problems found."),
    ]


def reported(dataset, clip):
    """Return what a node gives for a dataset, with the report as the language model in a CLIP reads its rows.

    Args:
        clip: the CLIP, or None.
    """
    from ..trainer.data.text.report import text_report

    shown = dataset
    if clip is not None:
        from .language_models import language_model

        shown = language_model(clip, dataset.row_settings).prepare_dataset(dataset)
    text = text_report(shown).text()
    return io.NodeOutput(dataset, text, ui=ui.PreviewText(text))
