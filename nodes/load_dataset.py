"""A folder of images with captions as a node."""

from .comfy_io import CATEGORY, Dataset, io, ui
from .folders import DEMO, dataset_choices, dataset_folder


class CrucibleLoadDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleLoadDataset",
            display_name="Load Dataset (Crucible)",
            category=CATEGORY,
            description="A folder of images, each with its caption in a .txt file of the same name.",
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
                io.String.Input(
                    "trigger_word",
                    default="",
                    display_name="trigger word",
                    tooltip=(
                        "The word that will call up what is learned. It is put in front of every caption that does "
                        "not have it, and is the caption of images that have none."
                    ),
                ),
                io.Int.Input(
                    "resolution",
                    default=0,
                    min=0,
                    max=4096,
                    step=8,
                    tooltip=(
                        "Images are trained at about this many pixels a side, in their own aspect ratio. 0 = what the "
                        "model was made for: 512 for SD1.5, 1024 for SDXL and Flux."
                    ),
                ),
            ],
            outputs=[
                Dataset.Output("dataset"),
                io.Image.Output("preview", tooltip="All images as they are cropped, with their captions."),
                io.String.Output("report", tooltip="What is in the folder and what was done with it."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, train_data_dir, trigger_word, resolution):
        from ..trainer.data.scan import folder_signature

        if train_data_dir is None:  # another node says which folder; that node's inputs decide alone
            return ""
        folder = dataset_folder(train_data_dir)
        return folder if folder == DEMO else folder_signature(folder)

    @classmethod
    def execute(cls, train_data_dir, trigger_word, resolution):
        from ..trainer.data.dataset import load_dataset
        from ..trainer.data.preview import contact_sheet, report
        from ..trainer.pictures import to_pixels

        folder = dataset_folder(train_data_dir)
        dataset = load_dataset(folder, trigger_word=trigger_word, resolution=resolution or None)
        text = report(dataset)
        preview = to_pixels(contact_sheet(dataset)).unsqueeze(0)
        return io.NodeOutput(dataset, preview, text, ui=ui.PreviewText(text))
