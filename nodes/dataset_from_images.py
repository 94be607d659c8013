"""Images of any other nodes as a dataset."""

from ..trainer.config import SETTINGS, from_widgets
from .comfy_io import CATEGORY, Dataset, io, ui
from .folders import temporary_folder
from .widgets import widget

SHOWN = ("trigger_word", "resolution", "missing_captions", "horizontal_flip", "allow_upscaling", "validation_percent")


class CrucibleDatasetFromImages(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleDatasetFromImages",
            display_name="Dataset from Images (Crucible)",
            category=CATEGORY,
            description=(
                "Makes a dataset of the images of any nodes, such as background removal, upscalers, or core's Load "
                "Image-Text nodes."
            ),
            search_aliases=["training images", "captions", "image list"],
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="One image, a batch, or a list of both."),
                io.String.Input(
                    "texts",
                    optional=True,
                    force_input=True,
                    tooltip="One caption for each image, or one for all of them.",
                ),
                *(widget(SETTINGS[name]) for name in SHOWN),
            ],
            outputs=[
                Dataset.Output("dataset"),
                io.Image.Output("preview", tooltip="The images as they are cropped, with captions and findings."),
                io.String.Output("report", tooltip="What is in the dataset, how it is trained and what is wrong."),
            ],
        )

    @classmethod
    def execute(cls, images, texts=None, **widgets):
        from ..trainer.data.from_images import dataset_from_images
        from ..trainer.data.preview import contact_sheet
        from ..trainer.data.report import dataset_report
        from ..trainer.pictures import to_pixels

        settings = from_widgets({name: values[0] for name, values in widgets.items()}).data
        dataset = dataset_from_images(images, texts or [], settings, temporary_folder())
        report = dataset_report(dataset)
        text = report.text()
        preview = to_pixels(contact_sheet(dataset, report.findings)).unsqueeze(0)
        return io.NodeOutput(dataset, preview, text, ui=ui.PreviewText(text))
