"""The Load Dataset node: reads and checks a folder of images with captions."""

from ..trainer.config import SETTINGS, from_widgets
from .comfy_io import CATEGORY, Dataset, io, ui
from .folders import DEMO, dataset_choices, dataset_folder, dataset_roots, pasted_folder, runs_folder
from .options import DataOptions, settings_of, values_of
from .widgets import refuse_unknown_inputs, widget

NONE = "none"

FOLDERS = ("train_data_dir", "reg_data_dir")
"""The settings without a generated widget: folders are chosen from lists."""


class CrucibleLoadDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleLoadDataset",
            display_name="Load Dataset (Crucible)",
            category=CATEGORY,
            description=(
                "Loads a folder of images with captions and checks it before anything is trained. The report says what "
                "the folder contains, how it will be trained, and which problems were found."
            ),
            search_aliases=["load image text folder", "training images", "captions"],
            inputs=[
                io.Combo.Input(
                    "train_data_dir",
                    options=dataset_choices(),
                    default=DEMO,
                    optional=True,
                    display_name="folder",
                    tooltip=(
                        "The folder with your images: a subfolder of ComfyUI's input folder, or of a registered "
                        "datasets folder. Press R if a new folder is missing from the list. demo is a small dataset "
                        "that comes with this pack."
                    ),
                ),
                io.String.Input(
                    "path",
                    default="",
                    optional=True,
                    tooltip=(
                        "The full path of any folder on this computer, used instead of the folder chosen above. Only "
                        "works while other computers cannot reach this ComfyUI."
                    ),
                ),
                *(
                    widget(setting)
                    for setting in settings_of("dataset", "text-to-image")
                    if setting.name not in FOLDERS
                ),
                io.Combo.Input(
                    "reg_data_dir",
                    options=[NONE, *dataset_choices()],
                    default=NONE,
                    optional=True,
                    display_name="regularization folder",
                    tooltip=SETTINGS["reg_data_dir"].description,
                ),
                DataOptions.Input(
                    "options", optional=True, tooltip="From Caption Options and Image Options, in a chain."
                ),
                io.Clip.Input("clip", optional=True, tooltip="With it, the report counts caption tokens exactly."),
                io.Vae.Input("vae", optional=True, tooltip="With it, the report shows the sizes of the latents."),
            ],
            outputs=[
                Dataset.Output("dataset", tooltip="For Train LoRA (Crucible) or Auto Caption (Crucible)."),
                io.Image.Output("preview", tooltip="The images as cropped, with captions and any problems found."),
                io.String.Output("report", tooltip="What the folder contains, how it is trained, any problems found."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, train_data_dir=DEMO, reg_data_dir=NONE, path="", **_):
        from ..trainer.data.listing import signature

        if train_data_dir is None or path is None:  # the value comes from another node, whose own inputs decide
            return ""
        folders = [_folder(train_data_dir, path), _regularization_folder(reg_data_dir)]
        return [folder if folder in (None, DEMO) else signature(folder) for folder in folders]

    @classmethod
    def execute(cls, train_data_dir=DEMO, reg_data_dir=NONE, path="", options=None, clip=None, vae=None, **widgets):
        from ..trainer.data.cache import cache_folder
        from ..trainer.data.images.contact_sheet import contact_sheet
        from ..trainer.data.images.load import load_dataset
        from ..trainer.data.images.report import dataset_report
        from ..trainer.files.pictures import to_pixels
        from ..trainer.models.comfyui.measuring import latent_factor, token_counter

        refuse_unknown_inputs(cls)
        folders = {
            "train_data_dir": _folder(train_data_dir, path),
            "reg_data_dir": _regularization_folder(reg_data_dir) or "",
        }
        settings = from_widgets({**widgets, **values_of(options), **folders}).data
        dataset = load_dataset(
            settings,
            roots=() if path.strip() or folders["train_data_dir"] == DEMO else dataset_roots(),
            facts_folder=cache_folder(runs_folder()) / "facts",
            progress=_progress(),
        )
        report = dataset_report(dataset, tokens=token_counter(clip), latent_factor=latent_factor(vae))
        text = report.text()
        preview = to_pixels(contact_sheet(dataset, report.findings)).unsqueeze(0)
        return io.NodeOutput(dataset, preview, text, ui=ui.PreviewText(text))


def _folder(train_data_dir, path):
    return pasted_folder(path) if path.strip() else dataset_folder(train_data_dir)


def _regularization_folder(reg_data_dir):
    return None if reg_data_dir in (NONE, None) else dataset_folder(reg_data_dir)


def _progress():
    """Return a function that advances ComfyUI's progress bar, and raises when the user cancels."""
    import comfy.utils

    bar = comfy.utils.ProgressBar(1)
    return lambda done, total: bar.update_absolute(done, total)
