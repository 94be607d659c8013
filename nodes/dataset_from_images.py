"""The Dataset from Images node: makes a dataset from the images of any other nodes."""

from ..trainer.config import SETTINGS, from_widgets
from .comfy_io import CATEGORY, Dataset, io, ui
from .folders import temporary_folder
from .options import DataOptions, values_of
from .widgets import refuse_unknown_inputs, widget

SHOWN = ("trigger_word", "resolution", "validation_percent")


class CrucibleDatasetFromImages(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CrucibleDatasetFromImages",
            display_name="Dataset from Images (Crucible)",
            category=CATEGORY,
            description=(
                "Makes a dataset from the images of any other nodes, such as background removal, upscalers, or "
                "ComfyUI's own Load Image-Text nodes."
            ),
            search_aliases=["training images", "captions", "image list"],
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="The images to train on: one image, a batch, or a list of these."),
                io.String.Input(
                    "texts",
                    optional=True,
                    force_input=True,
                    tooltip="The captions: one for each image in the same order, or a single one for all of them.",
                ),
                *(widget(SETTINGS[name]) for name in SHOWN),
                DataOptions.Input(
                    "options", optional=True, tooltip="From Caption Options and Image Options, in a chain."
                ),
            ],
            outputs=[
                Dataset.Output("dataset", tooltip="For Train LoRA (Crucible) or Auto Caption (Crucible)."),
                io.Image.Output("preview", tooltip="The images as cropped, with captions and any problems found."),
                io.String.Output("report", tooltip="What the dataset contains, how it is trained, any problems found."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, images, texts=None, options=None, **widgets):
        from ..trainer.data.images.contact_sheet import contact_sheet
        from ..trainer.data.images.from_images import dataset_from_images
        from ..trainer.data.images.report import dataset_report
        from ..trainer.files.pictures import to_pixels

        refuse_unknown_inputs(cls)
        values = {name: values[0] for name, values in widgets.items()}
        settings = from_widgets({**values, **values_of((options or [None])[0])}).data
        dataset = dataset_from_images(images, texts or [], settings, temporary_folder())
        report = dataset_report(dataset)
        text = report.text()
        preview = to_pixels(contact_sheet(dataset, report.findings)).unsqueeze(0)
        return io.NodeOutput(dataset, preview, text, ui=ui.PreviewText(text))
