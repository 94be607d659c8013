"""The images of a dataset as captioners need them, and datasets with new captions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..data.images.captioned import complete_captions
from ..data.images.captions import find_captions
from ..data.images.dataset import ImageDataset
from ..data.images.metadata_files import metadata_files, read_metadata
from ..data.images.scan import find_images
from ..data.images.training_image import TrainingImage
from ..errors import CrucibleError
from .run import Picture

ABOUT_CAPTIONS = ("no_caption", "caption_conflict", "trigger_word_added", "unreadable_caption")
"""The kinds of findings that new captions may resolve."""

NOT_IN_FOLDER = (
    "Captions of this dataset exist only in the workflow, so a run from the YAML would train without them. Let Auto "
    "Caption write them to files."
)
"""The reason why a config file that names the dataset's folder would not train on the same captions."""


def with_captions(dataset: ImageDataset, captions: Mapping[Path, str], *, in_files: bool = False) -> ImageDataset:
    """Return the dataset with these captions in place of its own; images without a new caption keep theirs.

    Args:
        captions: the new captions by image file.
        in_files: whether the captions are also stored in files beside the images.
    """
    everything = (*dataset.images, *dataset.validation)
    new = {image.path for image in everything if captions.get(image.path, "") not in ("", image.caption)}

    def captioned(images: Iterable[TrainingImage]) -> list[TrainingImage]:
        return [replace(image, captions=(captions[image.path],)) if image.path in new else image for image in images]

    findings = [finding for finding in dataset.findings if finding.kind not in ABOUT_CAPTIONS]
    images = captioned(dataset.images)
    without = [image.name for image in images if not image.captions]
    images = complete_captions(images, without, dataset.settings, findings)
    return replace(
        dataset,
        images=tuple(images),
        validation=tuple(captioned(dataset.validation)),
        findings=tuple(findings),
        not_in_folder=dataset.not_in_folder or (NOT_IN_FOLDER if new and not in_files else ""),
    )


def pictures_of(dataset: ImageDataset) -> list[Picture]:
    """Return every image file of the dataset once, even if the dataset repeats it."""
    images = (*dataset.images, *dataset.validation)
    return list({image.path: Picture(image.name, image.path, image.caption) for image in images}.values())


def pictures_in(folder: Path) -> tuple[list[Picture], list[str]]:
    """Return the images of a folder with the captions stored beside them.

    Returns:
        The images, and a line for each image that is left out because its caption cannot be read.

    Raises:
        CrucibleError: the folder has no images, or the table of captions cannot be read.
    """
    tables = [read_metadata(path) for path in metadata_files(folder, None)]
    images = find_images(folder, [name for table in tables for name in table.captions])
    metadata = [table.matched_to(image.name for image in images) for table in tables]
    pictures, unread = [], []
    for image in images:
        try:
            captions = find_captions(image, "auto", metadata).captions
        except CrucibleError as error:
            unread.append(f"{image.name}: {error}")
        else:
            pictures.append(Picture(image.name, image.path, captions[0] if captions else ""))
    return pictures, unread
