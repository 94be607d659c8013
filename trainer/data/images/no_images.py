"""What to say about a dataset folder that does not exist or has no images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ...errors import CrucibleError
from ...messages.suggestions import nearest_path
from ...messages.wording import counted, listed
from ..listing import Listing
from .file_kinds import ARCHIVES, BINARY_TABLES, VIDEOS, extension_of, has_image_name, unread_image

SUPPORTED = ".png, .jpg, .webp, .avif, .bmp, .tif, .gif and others that Pillow reads"

LIKELY_FOLDERS = ("img", "image", "images", "train", "dataset", "data")
UNLIKELY_FOLDERS = (
    "reg", "regs", "regularization", "reg_images", "class_images", "mask", "masks", "log", "logs", "model", "models",
    "sample", "samples", "output", "val", "validation", "test",
)  # fmt: skip
"""The names of folders that are rarely meant as the folder of the images."""


def no_folder(folder: Path) -> CrucibleError:
    """Return the error for a folder that does not exist or is a file."""
    if folder.exists():
        return CrucibleError(
            f"The image folder {folder.absolute()} is a file. Give the folder that contains the images: "
            f"{folder.absolute().parent}"
        )
    return CrucibleError(
        f"The image folder {folder.absolute()} does not exist, so there is nothing to train on. "
        f"{nearest_path(folder.absolute())} Correct the path, or put the images there."
    )


def no_images(root: Listing) -> CrucibleError:
    """Return the error for a folder without images of its own, which says where some are or what is there instead."""
    what = f"The image folder {root.path.absolute()} contains no images"
    usable = dict(usable_folders(root))
    if usable:
        best = max(usable, key=lambda one: (_likelihood(one), usable[one]))
        shown = listed([f"{one.name} ({count})" for one, count in usable.items()])
        return CrucibleError(
            f"{what} itself, only subfolders that do: {shown}. Subfolders are not searched, so that nothing "
            f"is trained by accident. Choose one of them, for example {best.path.absolute()}"
        )
    files = [*root.files, *root.broken]
    if not files and not root.folders:
        return CrucibleError(f"{what}; it is empty. Put images ({SUPPORTED}) into it, or choose another folder.")
    if not files:  # what is in subfolders may explain it
        files = [file for one in root.walk() for file in (*one.files, *one.broken)]
    kinds = Counter(extension_of(file) or "without extension" for file in files)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
    found = found or counted(len(root.folders), "empty subfolder")
    if any(extension_of(file) in ARCHIVES for file in files):
        remedy = "Unpack the archive there"
    elif unread := sorted({kind for file in files if (kind := unread_image(file))}):
        remedy = f"These are images that cannot be read ({', '.join(unread)}). Export them as PNG or JPEG"
    elif any(extension_of(file) in BINARY_TABLES for file in files):
        remedy = "Save the images in these tables as files"
    elif any(extension_of(file) in VIDEOS for file in files):
        remedy = "Save the frames of the video that you want as images"
    elif files and files == list(root.broken):
        remedy = "These are links that lead nowhere. Copy the images there"
    else:
        remedy = f"Put images ({SUPPORTED}) into it"
    return CrucibleError(f"{what}, only {found}. {remedy}, or choose another folder.")


def usable_folders(root: Listing) -> Iterator[tuple[Listing, int]]:
    """Yield the folders below a folder that can be chosen as datasets, with the numbers of their images.

    A folder with kohya-style subfolders is one of them; these subfolders themselves are not.
    """
    for one in root.folders:
        inside = [one, *(sub for sub in one.folders if _has_repeats(sub))]
        count = sum(has_image_name(file) for part in inside for file in part.files)
        if count:
            yield one, count
        else:
            yield from usable_folders(one)


def _has_repeats(folder: Listing) -> bool:
    number, _, rest = folder.path.name.partition("_")
    return number.isdecimal() and bool(rest)


def _likelihood(folder: Listing) -> int:
    """Return how likely a folder is the one that was meant, by its name and those of the folders around it."""
    names = folder.name.lower().split("/")
    if any(name in UNLIKELY_FOLDERS for name in names):
        return 0
    return 2 if names[-1] in LIKELY_FOLDERS else 1
