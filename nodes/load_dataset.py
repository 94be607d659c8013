"""A folder of images with captions as a node."""

from ..trainer.config import SETTINGS, DataSettings, from_widgets
from .comfy_io import CATEGORY, Dataset, io, ui
from .folders import DEMO, dataset_choices, dataset_folder, dataset_roots, pasted_folder, runs_folder
from .widgets import widget

NONE = "none"

NOT_AS_WIDGETS = {"train_data_dir", "reg_data_dir", "metadata_path"}
"""Folders are chosen from lists; a metadata file must lie in the folder."""


class CrucibleLoadDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        settings = sorted(
            (SETTINGS[name] for name in DataSettings.model_fields if name not in NOT_AS_WIDGETS),
            key=lambda setting: setting.advanced,
        )
        return io.Schema(
            node_id="CrucibleLoadDataset",
            display_name="Load Dataset (Crucible)",
            category=CATEGORY,
            description=(
                "A folder of images with captions, checked before anything is trained. The report says what is in it, "
                "how it is trained and what is wrong with it."
            ),
            search_aliases=["load image text folder", "training images", "captions"],
            inputs=[
                io.Combo.Input(
                    "train_data_dir",
                    options=dataset_choices(),
                    default=DEMO,
                    display_name="folder",
                    tooltip=(
                        "A subfolder of ComfyUI's input folder or of a registered datasets folder; press R after you "
                        "have made one. demo is a small set that comes with this pack."
                    ),
                ),
                *(widget(setting) for setting in settings),
                io.Combo.Input(
                    "reg_data_dir",
                    options=[NONE, *dataset_choices()],
                    default=NONE,
                    display_name="regularization folder",
                    tooltip=SETTINGS["reg_data_dir"].description,
                    advanced=True,
                ),
                io.String.Input(
                    "path",
                    default="",
                    tooltip=(
                        "Any folder of this computer, instead of one of the list. Only while ComfyUI cannot be "
                        "reached from other computers."
                    ),
                    advanced=True,
                ),
                io.Clip.Input("clip", optional=True, tooltip="Counts the tokens of captions exactly in the report."),
                io.Vae.Input("vae", optional=True, tooltip="Adds the sizes of the latents to the report."),
            ],
            outputs=[
                Dataset.Output("dataset"),
                io.Image.Output("preview", tooltip="The images as they are cropped, with captions and findings."),
                io.String.Output("report", tooltip="What is in the folder, how it is trained and what is wrong."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, train_data_dir, reg_data_dir, path, **_):
        from ..trainer.data.scan import folder_signature

        if train_data_dir is None or path is None:  # another node says which folder; its inputs decide alone
            return ""
        folders = [_folder(train_data_dir, path), _regularization_folder(reg_data_dir)]
        return [folder if folder in (None, DEMO) else folder_signature(folder) for folder in folders]

    @classmethod
    def execute(cls, train_data_dir, reg_data_dir, path, clip=None, vae=None, **widgets):
        from ..trainer.base_models.comfyui.measuring import latent_factor, token_counter
        from ..trainer.data.cache import cache_folder
        from ..trainer.data.dataset import load_dataset
        from ..trainer.data.preview import contact_sheet
        from ..trainer.data.report import dataset_report
        from ..trainer.pictures import to_pixels

        folders = {
            "train_data_dir": _folder(train_data_dir, path),
            "reg_data_dir": _regularization_folder(reg_data_dir) or "",
        }
        settings = from_widgets({**widgets, **folders}).data
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
    """ComfyUI's progress bar; it raises when the user cancels."""
    import comfy.utils

    bar = comfy.utils.ProgressBar(1)
    return lambda done, total: bar.update_absolute(done, total)
