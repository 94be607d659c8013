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
from .captioned import captioned, captions_of
from .dataset import DEMO, ImageDataset, split_dataset
from .image_facts import ImageFacts, all_facts
from .ledger import Ledger
from .masks import about_masks
from .metadata_files import MetadataFile, about_tables, metadata_files, read_metadata
from .scan import REPEATS_FOLDER, DatasetFiles, FoundImage, find_files
from .training_image import TrainingImage

MANY_REPEATS = 100
"""More repeats than this in the name of a folder are rarely meant."""

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
    use_masks = settings.mask_source == "file"
    tables = _tables(folder, settings)
    rows = [name for table in tables for name in table.captions]
    files = find_files(folder, rows, masks_expected=use_masks)
    inside = _inside(files.images, roots, findings)
    paths = [image.path for image in inside]
    masks = [image.mask for image in inside if use_masks and image.mask is not None]
    facts = all_facts([*paths, *masks], _index(facts_folder, folder), progress)
    readable = _readable(inside, facts, folder, findings)
    metadata = [table.matched_to(image.name for image in inside) for table in tables]
    findings += about_tables(tables, metadata)
    own = captions_of(readable, settings, metadata, findings)
    without = [image.path for image in readable if not own[image].captions]
    ledger = Ledger(files, [table.path for table in tables], without, _folders(settings))
    findings += ledger.findings(captions_in_files=settings.caption_source in ("auto", "sidecar"), masks=use_masks)
    findings += _table_above(files, without, settings, roots)
    findings += _many_repeats(readable, settings.repeats)
    findings += _own_repeats(folder)
    images = captioned(readable, own, facts, settings, findings, are_classes=are_classes)
    images = _with_masks(images, readable, facts, settings, findings)
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
    by_error: dict[str, list[str]] = {}
    for name, error in broken:
        by_error.setdefault(error, []).append(name)
    for error, names in by_error.items():
        one = len(names) == 1
        what = f"{names[0] if one else f'{len(names)} images'} {'was' if one else 'were'} skipped: {error}"
        remedy = f"Replace or delete {'it' if one else 'them'}."
        findings.append(Finding("unreadable", "warning", what, "", remedy, () if one else tuple(names)))
    return [image for image in found if not facts[image.path].error]


def _tables(folder: Path, settings: DataSettings) -> list[MetadataFile]:
    if settings.caption_source not in ("auto", "metadata") or not folder.is_dir():
        return []
    return [read_metadata(path) for path in metadata_files(folder, settings.metadata_path)]


def _folders(settings: DataSettings) -> list[Path]:
    """Return the folders that are used for something else than training images."""
    return [Path(settings.reg_data_dir).expanduser().resolve()] if settings.reg_data_dir else []


def _many_repeats(found: Sequence[FoundImage], repeats: int) -> Iterator[Finding]:
    """Yield a finding for each folder with a number in its name that is rarely meant as a number of repeats.

    Args:
        repeats: the number of repeats that the settings add.
    """
    folders = {image.path.parent.name: image.repeats for image in found if image.repeats > 1}
    for name, number in folders.items():
        if number * repeats <= MANY_REPEATS:
            continue
        cause = f"{number:,} by the number in the folder's name"
        cause += f" times {repeats} by the setting repeats" if repeats > 1 else ""
        yield Finding(
            "many_repeats",
            "warning",
            f"Each image in {name} is shown {number * repeats:,} times per epoch, {cause}",
            f"More than {MANY_REPEATS} repeats are rarely meant.",
            "If it is a year or a number of another kind, put a 1_ in front of the name.",
        )


def _own_repeats(folder: Path) -> Iterator[Finding]:
    """Yield a finding if a kohya-style folder was chosen itself, whose number then does not count."""
    match = REPEATS_FOLDER.fullmatch(folder.name)
    if match and 1 < int(match[1]) <= MANY_REPEATS:
        yield Finding(
            "own_repeats",
            "note",
            f"The {match[1]} in the name of the folder {folder.name} is not used as a number of repeats",
            "Such numbers count in the names of its subfolders only.",
            f"To repeat its images, choose the folder above ({folder.parent}), or set repeats to {match[1]}.",
        )


def _table_above(
    files: DatasetFiles, without: Sequence[Path], settings: DataSettings, roots: Sequence[Path]
) -> Iterator[Finding]:
    """Yield a finding if captions are missing that may be in a table in the folder above."""
    above = files.root.path.parent
    if not without or settings.metadata_path or settings.caption_source not in ("auto", "metadata"):
        return
    if roots and not any(above.is_relative_to(root.resolve()) for root in roots):
        return
    for table in metadata_files(above, None)[:1]:
        yield Finding(
            "table_above",
            "warning",
            f"{table.name} in the folder above ({above}) is not read",
            "It may have the captions that are missing.",
            f"If so, choose the folder above, or set metadata_path to {table}.",
        )


def _with_masks(
    images: list[TrainingImage],
    found: Sequence[FoundImage],
    facts: Mapping[Path, ImageFacts],
    settings: DataSettings,
    findings: list[Finding],
) -> list[TrainingImage]:
    if settings.mask_source == "none":
        return images
    files = {image.path: image.mask for image in found}

    def mask(image: TrainingImage) -> Path | None:
        if settings.mask_source == "alpha":
            return image.path if image.facts.has_alpha else None
        return files[image.path]

    masked = [replace(image, mask=mask(image)) for image in images]
    findings += about_masks(masked, facts, settings.mask_source)
    return masked


def _of_regularization(finding: Finding) -> Finding:
    """Return a finding about regularization images, with a remedy that suits them: they have no trigger word."""
    finding = replace(finding, what=f"Regularization: {finding.what}")
    if finding.kind != "no_caption" or finding.severity == "note":
        return finding
    return replace(
        finding,
        consequence="Without captions, nothing says what the model should keep of them.",
        remedy="Write captions, or put them into a folder with a number and what they show in its name, such as 1_man.",
    )


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
    try:
        loaded = load_dataset(own, roots=roots, facts_folder=facts_folder, progress=progress, are_classes=True)
    except CrucibleError as error:
        raise CrucibleError(
            f"{error}\nThis folder is set as reg_data_dir. To train without regularization images, leave it out."
        ) from error
    findings += map(_of_regularization, loaded.findings)
    return loaded.images
