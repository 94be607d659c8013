"""Reading a folder of captioned images as a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...config.data_settings import DataSettings
from ...demo import DATASET_DIR, TRIGGER_WORD
from ...errors import CrucibleError
from ...messages.wording import counted
from ..findings import Finding
from .captions import DAMAGED, class_of, find_captions, finished, holds_word, legible
from .dataset import DEMO, ImageDataset, split_dataset
from .image_facts import ImageFacts, all_facts, find_facts
from .ledger import account
from .marks import findings_of_marks, with_trigger_in_place
from .metadata_files import MetadataFile, metadata_files, misspelt_metadata, read_metadata
from .scan import FoundImage, find_images, find_mask
from .training_image import TrainingImage

MANY_REPEATS = 100
"""More repeats than this in the name of a folder are rarely meant."""

UNNOTICED_STRETCH = 0.02
"""The difference between the shapes of an image and its mask that comes from rounding."""

DEMO_RESOLUTION = 64
"""The resolution of the demo's images, in pixels."""


def load_dataset(
    settings: DataSettings,
    *,
    roots: Sequence[Path] = (),
    facts_folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    are_classes: bool = False,
) -> ImageDataset:
    """Load a folder of images with captions, and decode every image once so that none fails later.

    Args:
        settings: the settings of the dataset; `train_data_dir` is a folder, or `demo` for the dataset that comes with
            the package.
        roots: the folders that images must be in after links are followed; with none, they may be anywhere.
        facts_folder: the folder that keeps the facts about each image, so that the next start is quick.
        progress: a function called with (done, total) after every decoded image; may raise to stop.
        are_classes: whether images without a caption show what the name of their folder says (1_man), as those of
            kohya's regularization folders do.

    Raises:
        CrucibleError: the folder cannot be used, or no image in it can be read. Everything else that is wrong is
            recorded in the dataset's findings.
    """
    settings, folder, name = _located(settings)
    findings: list[Finding] = []
    tables = _tables(folder, settings)
    found = find_images(folder, [name for table in tables for name in table.captions])
    inside = _inside(found, roots, findings)
    facts = all_facts((image.path for image in inside), _index(facts_folder, folder), progress)
    readable = _readable(inside, facts, folder, findings)
    metadata = _metadata(folder, tables, [image.name for image in readable], findings)
    findings += account(folder, found, [table.path for table in tables], masks=settings.mask_source == "file")
    findings += _many_repeats(readable)
    images = _with_captions(readable, facts, settings, metadata, findings, are_classes=are_classes)
    images = _with_masks(images, settings, findings)
    regularization: tuple[TrainingImage, ...] = ()
    if settings.reg_data_dir:
        regularization = _regularization(settings, roots, facts_folder, progress, findings)
    return split_dataset(ImageDataset(name, folder, settings, tuple(images), (), regularization, tuple(findings)))


def _located(settings: DataSettings) -> tuple[DataSettings, Path, str]:
    """Return the settings with a cleaned-up trigger word, the folder, and the name of the dataset."""
    trigger_word = " ".join(settings.trigger_word.split())
    written = (settings.train_data_dir or "").strip()
    if written == DEMO:
        chosen = {
            "trigger_word": trigger_word or TRIGGER_WORD,
            "resolution": settings.resolution or DEMO_RESOLUTION,
            "train_data_dir": DEMO,
        }
        return settings.model_copy(update=chosen), DATASET_DIR, DEMO
    if not written:
        raise CrucibleError(
            "No image folder is set, so there is nothing to train on. Set train_data_dir to the folder of "
            f"your images, or to {DEMO} for the images that come with the package."
        )
    folder = Path(written).expanduser().resolve()
    return (
        settings.model_copy(update={"trigger_word": trigger_word, "train_data_dir": str(folder)}),
        folder,
        folder.name,
    )


def _index(facts_folder: Path | None, folder: Path) -> Path | None:
    if facts_folder is None:
        return None
    return facts_folder / f"{hashlib.sha256(str(folder).encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.json"


def _inside(found: Sequence[FoundImage], roots: Sequence[Path], findings: list[Finding]) -> list[FoundImage]:
    """Return the images that are in the roots, after links are followed."""
    real = [root.resolve() for root in roots]

    def allowed(image: FoundImage) -> bool:
        return not real or any(image.path.resolve().is_relative_to(root) for root in real)

    outside = tuple(image.name for image in found if not allowed(image))
    if outside:
        findings.append(
            Finding(
                "outside",
                "warning",
                f"{counted(len(outside), 'image is a link', 'images are links')} to folders that may not be read",
                "They were skipped.",
                "Copy the files here, or register their folder under `datasets` in extra_model_paths.yaml.",
                outside,
            )
        )
    return [image for image in found if image.name not in outside]


def _readable(
    found: Sequence[FoundImage], facts: dict[Path, ImageFacts], folder: Path, findings: list[Finding]
) -> list[FoundImage]:
    broken = [(image.name, facts[image.path].error) for image in found if facts[image.path].error]
    if len(broken) == len(found):
        lines = "\n".join(f"  {name}: {error}" for name, error in broken[:5])
        raise CrucibleError(
            f"None of the images in {folder} can be read ({len(found)} found), so there is nothing to train on:\n"
            f"{lines}\nReplace them with images that open in an image viewer."
        )
    findings += [
        Finding("unreadable", "warning", f"{name} was skipped: {error}", "", "Replace it or delete it.", ())
        for name, error in broken
    ]
    return [image for image in found if not facts[image.path].error]


def _tables(folder: Path, settings: DataSettings) -> list[MetadataFile]:
    if settings.caption_source not in ("auto", "metadata") or not folder.is_dir():
        return []
    return [read_metadata(path) for path in metadata_files(folder, settings.metadata_path)]


def _many_repeats(found: Sequence[FoundImage]) -> Iterator[Finding]:
    folders = {image.path.parent.name: image.repeats for image in found if image.repeats > MANY_REPEATS}
    for name, repeats in folders.items():
        yield Finding(
            "many_repeats",
            "warning",
            f"Each image in {name} is shown {repeats:,} times per epoch, as the number in the folder's name says",
            f"More than {MANY_REPEATS} repeats are rarely meant.",
            "If it is a year or a number of another kind, put a 1_ in front of the name.",
        )


def _metadata(
    folder: Path, tables: Sequence[MetadataFile], names: list[str], findings: list[Finding]
) -> list[MetadataFile]:
    files = [table.matched_to(names) for table in tables]
    misspelt = misspelt_metadata(folder)
    if not files and misspelt:
        findings.append(
            Finding(
                "misspelt_metadata",
                "warning",
                f"{misspelt} is not read",
                "Only metadata.csv and metadata.jsonl are.",
                "Rename it if it contains the captions.",
            )
        )
    for file in files:
        if file.guess:
            what = f"{file.path.name} is not UTF-8: {file.guess}, which is a guess"
            why, remedy = "If it is wrong, other words are trained.", "Look at the captions, and save it as UTF-8."
            findings.append(Finding("guessed_encoding", "warning", what, why, remedy))
        if file.unread:
            lines = counted(len(file.unread), "line")
            what = f"{lines} of {file.path.name} cannot be used: {'; '.join(file.unread[:3])}"
            findings.append(Finding("unread_lines", "warning", what, "Their captions are missing.", "Fix them."))
        orphans = tuple(file.without_image(names))
        if orphans:
            what = f"{file.path.name} lists {counted(len(orphans), 'name')} without a readable image"
            remedy = "Fix the names in the file, or add the images."
            findings.append(Finding("rows_without_image", "warning", what, "They are ignored.", remedy, orphans))
    return files


def _with_captions(
    found: Sequence[FoundImage],
    facts: dict[Path, ImageFacts],
    settings: DataSettings,
    metadata: Sequence[MetadataFile],
    findings: list[Finding],
    *,
    are_classes: bool = False,
) -> list[TrainingImage]:
    images, without, conflicts, unreadable = [], [], [], []
    classes: dict[str, list[str]] = {}
    bare: dict[str, str] = {}
    guessed: dict[str, list[str]] = {}
    for image in found:
        try:
            own = find_captions(image, settings.caption_source, metadata, per_line=settings.captions_per_line)
        except CrucibleError as error:
            unreadable.append(f"{image.name}: {error}")
            own = find_captions(image, "metadata", metadata)
        if not own.captions and are_classes and class_of(image):
            own = replace(own, captions=class_of(image))
            classes.setdefault(own.captions[0], []).append(image.name)
        if not own.captions:
            without.append(image.name)
        bare[image.name] = own.captions[0] if own.captions else ""
        if own.guess:
            guessed.setdefault(own.guess, []).append(image.name)
        if own.others:
            conflicts.append(f"{image.name} ({own.source} before {', '.join(own.others)})")
        captions = tuple(finished(caption, settings) for caption in own.captions)
        repeats = image.repeats * settings.repeats
        images.append(TrainingImage(image.path, image.name, captions, facts[image.path], repeats))
    word = settings.trigger_word
    added = tuple(
        one.name
        for one in images
        if one.captions and word and not holds_word(with_trigger_in_place(bare[one.name], word), word)
    )
    if added:
        done = f'"{word}" was added to the front of {counted(len(added), "caption")} without it'
        findings.append(Finding("trigger_word_added", "note", done))
    for words, names in classes.items():
        what = (
            f'{counted(len(names), "image has", "images have")} no caption, and "{words}" is used, as their folder says'
        )
        findings.append(Finding("class_captions", "note", what, "", "", tuple(names)))
    findings += _about_the_text(images, bare, guessed)
    for text in unreadable:
        findings.append(Finding("unreadable_caption", "warning", text))
    if conflicts:
        what = f"{counted(len(conflicts), 'image has', 'images have')} different captions in several places"
        order = "The first one is used, in the order .txt, .caption, metadata.jsonl, metadata.csv."
        findings.append(Finding("caption_conflict", "warning", what, order, "Delete the others.", tuple(conflicts)))
    return complete_captions(images, without, settings, findings)


def complete_captions(
    images: list[TrainingImage], without: Sequence[str], settings: DataSettings, findings: list[Finding]
) -> list[TrainingImage]:
    """Handle images without a caption as the settings say, and report that in `findings`.

    Args:
        without: the names of the images without a caption.

    Returns:
        The images that remain, with captions where the settings provide one.
    """
    if not without:
        return images
    what = f"{counted(len(without), 'image has', 'images have')} no caption"
    if settings.missing_captions == "skip":
        findings.append(Finding("no_caption", "note", what, "They were skipped.", "", tuple(without)))
        return [image for image in images if image.captions]
    if settings.trigger_word:
        done = f'"{settings.trigger_word}" is used as their whole caption.'
        findings.append(Finding("no_caption", "note", what, done, "", tuple(without)))
        whole = (settings.trigger_word,)
        return [image if image.captions else replace(image, captions=whole) for image in images]
    findings.append(
        Finding(
            "no_caption",
            "error",
            what,
            "Without captions, no prompt would call up what the LoRA learns from them.",
            f"Write each into a text file with the image's name ({Path(without[0]).with_suffix('.txt').name} for "
            f"{without[0]}), let Auto Caption write them, set a trigger word to use as their caption, or set "
            "missing_captions to skip.",
            tuple(without),
        )
    )
    return images


def _about_the_text(
    images: Sequence[TrainingImage], bare: Mapping[str, str], guessed: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Yield findings about captions whose text may be something else than what was meant."""
    for guess, names in guessed.items():
        yield Finding(
            "guessed_encoding",
            "warning",
            f"{counted(len(names), 'caption is', 'captions are')} not UTF-8: {guess}, which is a guess",
            "If it is wrong, other words are trained.",
            "Look at them, and save the files as UTF-8.",
            tuple(names),
        )
    damaged = tuple(image.name for image in images if any(DAMAGED in caption for caption in image.captions))
    if damaged:
        yield Finding(
            "damaged_caption",
            "warning",
            f"{counted(len(damaged), 'caption has', 'captions have')} letters that an earlier program lost",
            f"They are trained as {DAMAGED}.",
            "Write these captions anew.",
            damaged,
        )
    unseen = tuple(name for name, caption in bare.items() if legible(caption) not in (caption, ""))
    unseen = tuple(name for name in unseen if name not in damaged)
    if unseen:
        what = f"Letters that are not seen were left out of {counted(len(unseen), 'caption')}"
        yield Finding("unseen_letters", "note", what, "", "", unseen)
    yield from findings_of_marks([(image.name, caption) for image in images for caption in image.captions])


def _with_masks(images: list[TrainingImage], settings: DataSettings, findings: list[Finding]) -> list[TrainingImage]:
    if settings.mask_source == "none":
        return images

    def mask(image: TrainingImage) -> Path | None:
        if settings.mask_source == "alpha":
            return image.path if image.facts.has_alpha else None
        return find_mask(image.path)

    masked = [replace(image, mask=mask(image)) for image in images]
    without = tuple(image.name for image in masked if image.mask is None)
    if settings.mask_source == "file":
        findings += _odd_masks(masked)
    if without:
        where = "no transparent pixels" if settings.mask_source == "alpha" else "no mask file"
        findings.append(
            Finding(
                "no_mask",
                "warning" if len(without) < len(images) else "error",
                f"{counted(len(without), 'image has', 'images have')} {where}",
                "They are trained whole, including their background.",
                "Add the missing masks, or set mask_source to none.",
                without,
            )
        )
    return masked


def _odd_masks(images: Sequence[TrainingImage]) -> Iterator[Finding]:
    """Yield findings about mask files that do not do what a mask is for."""
    masks = {image.name: find_facts(image.mask) for image in images if image.mask is not None}
    unreadable = [
        f"{image.name}: {masks[image.name].error}" for image in images if image.mask and masks[image.name].error
    ]
    if unreadable:
        what = f"{counted(len(unreadable), 'mask')} cannot be read"
        yield Finding("unreadable_mask", "error", what, "", "Replace or delete them.", tuple(unreadable))
    black = tuple(name for name, mask in masks.items() if not mask.error and mask.colour == 0 and mask.spread == 0)
    if black:
        what = f"{counted(len(black), 'mask is', 'masks are')} black all over"
        why = "White is what is trained, so nothing of these images would be."
        yield Finding("black_mask", "warning", what, why, "Paint white what is to be learned, or delete them.", black)
    odd = tuple(
        image.name
        for image in images
        if (mask := masks.get(image.name)) and mask.height and not _same_shape(mask, image.facts)
    )
    if odd:
        what = f"{counted(len(odd), 'mask has', 'masks have')} another shape than the image"
        yield Finding("stretched_mask", "warning", what, "They are stretched to it.", "Check that they fit.", odd)


def _same_shape(one: ImageFacts, other: ImageFacts) -> bool:
    return abs(one.width * other.height / (one.height * other.width) - 1) < UNNOTICED_STRETCH


def _of_regularization(finding: Finding) -> Finding:
    """Return a finding with a remedy that suits regularization images, which have no trigger word."""
    if finding.kind != "no_caption" or finding.severity == "note":
        return finding
    remedy = "Write captions, or put them into a folder with a number and what they show in its name, such as 1_man."
    return replace(finding, remedy=remedy)


def _regularization(
    settings: DataSettings,
    roots: Sequence[Path],
    facts_folder: Path | None,
    progress: Callable[[int, int], None] | None,
    findings: list[Finding],
) -> tuple[TrainingImage, ...]:
    own = settings.model_copy(
        update={
            "train_data_dir": settings.reg_data_dir,
            "trigger_word": "",
            "reg_data_dir": None,
            "metadata_path": None,
            "missing_captions": DataSettings().missing_captions,
            "validation_percent": 0.0,
            "mask_source": "none",
            "repeats": 1,
        }
    )
    loaded = load_dataset(own, roots=roots, facts_folder=facts_folder, progress=progress, are_classes=True)
    loaded = replace(loaded, findings=tuple(_of_regularization(one) for one in loaded.findings))
    findings += [replace(one, what=f"Regularization: {one.what}") for one in loaded.findings]
    return loaded.images
