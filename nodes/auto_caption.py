"""The Auto Caption node: writes captions for the images of a dataset."""

import logging

from ..trainer.captioners.models import DEFAULT, captioner_choices
from ..trainer.captioners.options import DETAILS, LANGUAGES, MODES, CaptionOptions, CaptionStyle, split_words
from ..trainer.config.setting import AUTO_NUMBER
from .comfy_io import CATEGORY, Dataset, io, ui
from .folders import caption_cache_folder, captioner_roots
from .tagger_options import TaggerOptions
from .widgets import auto_number, refuse_unknown_inputs

NOTHING, SIDECARS, METADATA = "nothing", "text files", "metadata.csv"
PREVIEW_SIDE = 512

log = logging.getLogger(__name__)


class CrucibleAutoCaption(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        style = CaptionStyle()
        return io.Schema(
            node_id="CrucibleAutoCaption",
            display_name="Auto Caption (Crucible)",
            category=CATEGORY,
            description=(
                "Writes captions for the images of a dataset: sentences (Florence-2, BLIP or a chat model) or tags (a "
                "tagger). The captions go to Train LoRA with the dataset; your files change only if you choose so "
                "under write. Cancel keeps the captions written so far."
            ),
            search_aliases=["tagger", "wd14", "florence", "qwen vl", "blip", "describe images"],
            is_output_node=True,
            inputs=[
                Dataset.Input("dataset", tooltip="The images to caption, from Load Dataset (Crucible)."),
                io.Combo.Input(
                    "captioner",
                    options=captioner_choices(captioner_roots()),
                    default=DEFAULT.label,
                    optional=True,
                    tooltip=(
                        "The model that writes the captions: one of those in your models/captioners folder, or one "
                        "that can be downloaded into it. Florence-2 is small and fast, Qwen-VL gives the best "
                        "descriptions, wd-vit-tagger writes tags for anime models."
                    ),
                ),
                io.Boolean.Input(
                    "download",
                    default=False,
                    optional=True,
                    tooltip=(
                        "Download the captioner from the Hugging Face Hub if it is not on this computer yet. The list "
                        "shows the size of the download."
                    ),
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=MODES[0],
                    optional=True,
                    tooltip=(
                        "only_missing: caption only the images that have no caption. replace: write new captions for "
                        "all images. append / prepend: add the new text after / before the existing caption."
                    ),
                ),
                io.Combo.Input(
                    "detail",
                    options=list(DETAILS),
                    default=style.detail,
                    optional=True,
                    tooltip="How detailed the captions are. BLIP is always short; taggers use thresholds instead.",
                ),
                io.String.Input(
                    "instruction",
                    default="",
                    optional=True,
                    multiline=True,
                    tooltip=(
                        "For chat models only: your own instruction, for example: Describe the clothes and the pose. "
                        "Leave it empty to use one that matches detail and language."
                    ),
                ),
                io.Combo.Input(
                    "language",
                    options=list(LANGUAGES),
                    default=style.language,
                    optional=True,
                    tooltip=(
                        "For chat models only: the language of the captions, English (en) or Chinese (zh). Ignored if "
                        "you write an instruction of your own."
                    ),
                ),
                auto_number(
                    io.Int,
                    "max_length",
                    1,
                    1000,
                    expected="a whole number from 1 to 1,000, or auto",
                    optional=True,
                    display_name="max length",
                    tooltip=(
                        "The longest a new caption may be, in words (in Chinese: characters) or tags. Words are never "
                        "cut in half. SD1.5 and SDXL read about 60 words of a caption. On auto, detail decides."
                    ),
                ),
                io.String.Input(
                    "blocked_words",
                    default="",
                    optional=True,
                    multiline=True,
                    display_name="blocked words",
                    tooltip=(
                        "Words, phrases or tags to remove from new captions, separated by commas. Block the words for "
                        "what the LoRA should learn, so that it is tied to the trigger word instead."
                    ),
                ),
                io.Combo.Input(
                    "write",
                    options=[NOTHING, SIDECARS, METADATA],
                    default=NOTHING,
                    optional=True,
                    tooltip=(
                        "Also save the captions in the dataset's folder: as a .txt file next to each image, or as one "
                        "table, metadata.csv. Files that are replaced are kept as .bak."
                    ),
                ),
                auto_number(
                    io.Int,
                    "batch_size",
                    1,
                    256,
                    expected="a whole number from 1 to 256, or auto",
                    optional=True,
                    display_name="batch size",
                    tooltip="How many images to caption at once; halved when memory runs out.",
                ),
                TaggerOptions.Input("options", optional=True, tooltip="For taggers: from Tagger Options (Crucible)."),
            ],
            outputs=[
                Dataset.Output("dataset", tooltip="The same images with the new captions, for Train LoRA (Crucible)."),
                io.String.Output("texts", is_output_list=True, tooltip="The captions, in the order of the images."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, dataset, captioner=DEFAULT.label, download=False, write=NOTHING, options=None, **settings):
        from ..trainer.captioners.cache import CaptionCache
        from ..trainer.captioners.dataset import pictures_of, with_captions
        from ..trainer.captioners.registry import open_captioner
        from ..trainer.captioners.run import CaptionResult, caption_images
        from ..trainer.captioners.tables import open_table
        from ..trainer.captioners.wording import needs_caption
        from ..trainer.captioners.write import METADATA_FILE, check_writable, without_shared
        from ..trainer.doctor.requirements import require_packages
        from ..trainer.models.comfyui.captioning import captioner_session, is_out_of_memory
        from ..trainer.models.comfyui.memory import check_interrupt

        require_packages()
        refuse_unknown_inputs(cls)
        if write != NOTHING:
            check_writable(dataset.folder)
        if write == METADATA:
            open_table(dataset.folder / METADATA_FILE)
        how = _options({**settings, **(options or {})}, dataset.trigger_word)
        pictures = pictures_of(dataset)
        if not any(needs_caption(picture.caption, how) for picture in pictures):
            texts = [image.caption for image in dataset.images]
            return io.NodeOutput(dataset, texts, ui=ui.PreviewText("Every image has a caption: nothing to do."))
        model = open_captioner(_fetched(captioner, download))
        result = CaptionResult()
        if write == SIDECARS:
            pictures, result.problems = without_shared(pictures, how)
        show = _preview(len(pictures))
        try:
            for done in caption_images(
                model,
                pictures,
                how,
                lambda: captioner_session(model),
                cache=CaptionCache(caption_cache_folder(), model, how.style),
                check=check_interrupt,
                is_out_of_memory=is_out_of_memory,
            ):
                result.add(done)
                show(done)
        finally:  # Cancel also keeps the captions written so far
            _write(write, dataset, result)
        captioned = with_captions(dataset, result.captions, in_files=write != NOTHING)
        report = result.report(model.folder.name)
        texts = [image.caption for image in captioned.images]
        return io.NodeOutput(captioned, texts, ui=ui.PreviewText(report))


def _options(settings, trigger_word):
    given = dict(settings)
    for name in ("max_length", "batch_size"):
        given[name] = max(0, given.get(name, AUTO_NUMBER))
    words = split_words(given.pop("blocked_words", ""))
    own = {name: given.pop(name) for name in ("mode", "batch_size") if name in given}
    return CaptionOptions(trigger_word=trigger_word, blocked_words=words, style=CaptionStyle(**given), **own)


def _fetched(captioner, download):
    """Return the captioner's folder, downloading it first (with ComfyUI's progress bar) if it is missing."""
    import comfy.utils

    from ..trainer.captioners.download import get_captioner
    from ..trainer.models.comfyui.memory import check_interrupt

    bar = comfy.utils.ProgressBar(1)

    def progress(done, total, file):
        check_interrupt()
        bar.update_absolute(done, total)

    return get_captioner(captioner, captioner_roots(), download=download, progress=progress, announce=_announce)


def _announce(text):
    """Write a message to the log and show it on the running node."""
    from comfy_execution.utils import get_executing_context
    from server import PromptServer

    log.info(text)
    context = get_executing_context()
    if context is not None:
        PromptServer.instance.send_progress_text(text, context.node_id)


def _preview(count):
    """Return a function that shows each captioned image on the node and advances the progress bar."""
    import comfy.utils

    from ..trainer.captioners.preview import captioned_picture

    bar = comfy.utils.ProgressBar(count)

    def show(done):
        picture = None
        if done.image is not None:
            picture = ("JPEG", captioned_picture(done.image, done.caption or done.problem), PREVIEW_SIDE)
        bar.update_absolute(bar.current + 1, count, picture)

    return show


def _write(write, dataset, result):
    from ..trainer.captioners.write import METADATA_FILE, write_sidecars, write_table

    if write == SIDECARS:
        write_sidecars({path: result.captions[path] for path in result.written})
    elif write == METADATA and result.written:
        captions = {image.path: image.caption for image in dataset.images if image.caption}
        write_table(dataset.folder / METADATA_FILE, {**captions, **result.captions}, result.written)
