"""Finding the masks of images, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ...messages.wording import counted
from ..findings import Finding, Severity
from .file_kinds import extension_of, has_image_name
from .image_facts import ImageFacts
from .sidecars import Names
from .training_image import TrainingImage

MASK_ENDINGS = (".mask", "-masklabel", "_masklabel", "_mask", "-mask")
"""The endings of a mask file's name, before its extension, in order of precedence."""

SURE_ENDINGS = (".mask", "-masklabel", "_masklabel")
"""Those that no image has by chance."""

MASK_FOLDERS = ("mask", "masks")
"""The names of folders with masks that are called as their images are."""

UNNOTICED_STRETCH = 0.02
"""The difference between the shapes of an image and its mask that comes from rounding."""


def match_masks(
    files: Sequence[Path], pictures: Sequence[Path], captioned: Collection[Path], *, all_endings: bool
) -> tuple[dict[Path, list[Path]], list[Path]]:
    """Find the masks of the images in one folder, beside them.

    Args:
        files: the files of the folder.
        pictures: those among them that are images or masks, readable or not.
        captioned: the files with a caption file of their own name, which are images whatever they are called.
        all_endings: whether a name with any of `MASK_ENDINGS` is a mask even if no image has the rest of the name;
            otherwise only those of `SURE_ENDINGS` are.

    Returns:
        The masks of each image in order of precedence, and the masks that belong to no image.
    """
    lonely = MASK_ENDINGS if all_endings else SURE_ENDINGS
    names = Names(pictures)
    found: dict[Path, list[tuple[int, Path]]] = {}
    orphans = []
    for file in files:
        stem, rank = _without_ending(file)
        if not stem or rank == len(MASK_ENDINGS) or file in captioned:
            continue
        owners = names.owners(stem)[0]
        for image in owners:
            found.setdefault(image, []).append((rank, file))
        if not owners and MASK_ENDINGS[rank] in lonely:
            orphans.append(file)
    return {image: [file for _, file in sorted(masks)] for image, masks in found.items()}, orphans


def match_mask_folder(masks: Iterable[Path], pictures: Iterable[Path]) -> tuple[dict[Path, list[Path]], list[Path]]:
    """Find the images of the masks in a folder of their own, which are called as their images are.

    Args:
        masks: the images in the folder of masks.
        pictures: the images that they may be of. Of those in several folders with one name, none is.

    Returns:
        The masks of each image, and the masks that belong to no image.
    """
    names = Names(pictures)
    found: dict[Path, list[Path]] = {}
    orphans = []
    for file in masks:
        owners = names.owners(file.stem)[0] or names.owners(_without_ending(file)[0])[0]
        if not owners or len({image.parent for image in owners}) > 1:
            orphans.append(file)
            continue
        for image in owners:
            found.setdefault(image, []).append(file)
    return found, orphans


def _without_ending(file: Path) -> tuple[str, int]:
    """Return the name of the image that a mask is called after, and the place of its ending in `MASK_ENDINGS`.

    For a file that is not called as masks are, the place is that after the last.
    """
    if extension_of(file) == ".mask":
        return file.stem, 0
    if has_image_name(file):
        for rank, ending in enumerate(MASK_ENDINGS):
            if file.stem.lower().endswith(ending):
                return file.stem[: -len(ending)], rank
    return file.stem, len(MASK_ENDINGS)


def about_masks(images: Sequence[TrainingImage], facts: Mapping[Path, ImageFacts], source: str) -> Iterator[Finding]:
    """Yield findings about images without a mask, and about masks that do not do what a mask is for.

    Args:
        images: the images with their masks.
        facts: the facts about the mask files.
        source: the setting `mask_source`, "alpha" or "file".
    """
    without = tuple(image.name for image in images if image.mask is None)
    if without:
        lack, remedy = "no mask file", "Add them as <name>.mask.png or in a subfolder called masks"
        if source == "alpha":
            lack, remedy = "no transparent pixels", "Make what is not to be trained transparent"
        yield Finding(
            "no_mask",
            "warning" if len(without) < len(images) else "error",
            f"{counted(len(without), 'image has', 'images have')} {lack}",
            "They are trained whole, including their background.",
            f"{remedy}, or set mask_source to none.",
            without,
        )
    if source != "file":
        return
    masks = [(image, facts[image.mask]) for image in images if image.mask is not None]
    unreadable = tuple(f"{image.name}: {mask.error}" for image, mask in masks if mask.error)
    if unreadable:
        what = f"{counted(len(unreadable), 'mask')} cannot be read"
        why = "It is not known which part of these images is to be trained."
        yield Finding("unreadable_mask", "error", what, why, "Replace or delete them.", unreadable)
    plain = [(image.name, mask.colour) for image, mask in masks if not mask.error and mask.blank]
    black = tuple(name for name, colour in plain if colour == 0)
    if black:
        what = f"{counted(len(black), 'mask is', 'masks are')} black all over"
        why = "White is what is trained, so nothing of these images would be."
        yield Finding("black_mask", "warning", what, why, "Paint white what is to be learned, or delete them.", black)
    white = tuple(name for name, colour in plain if colour == 0xFFFFFF)
    if white:
        what = f"{counted(len(white), 'mask is', 'masks are')} white all over"
        why = "These images are trained whole, as if they had no mask."
        remedy = "If they should hide something, save them as black and white without transparency."
        severity: Severity = "warning" if len(white) == len(masks) else "note"
        yield Finding("white_mask", severity, what, why, remedy, white)
    odd = tuple(image.name for image, mask in masks if mask.height and not _same_shape(mask, image.facts))
    if odd:
        what = f"{counted(len(odd), 'mask has', 'masks have')} another shape than the image"
        yield Finding("stretched_mask", "warning", what, "They are stretched to it.", "Check that they fit.", odd)


def _same_shape(one: ImageFacts, other: ImageFacts) -> bool:
    return abs(one.width * other.height / (one.height * other.width) - 1) < UNNOTICED_STRETCH
