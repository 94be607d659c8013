"""Finding the images in a dataset folder, and the masks beside them."""

from __future__ import annotations

import glob
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import CrucibleError
from ...messages.suggestions import nearest_path

IMAGE_EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif"}
)
CAPTION_EXTENSIONS = (".txt", ".TXT", ".caption")
METADATA_EXTENSIONS = (".csv", ".jsonl")
MASK_ENDINGS = (".mask", "-masklabel")
"""The endings of a mask file's name, before its extension."""

REPEATS_FOLDER = re.compile(r"(\d+)_(.+)")
"""The name, as used by kohya, of a folder whose images are shown several times per epoch."""


@dataclass(frozen=True)
class FoundImage:
    """An image file of a dataset.

    Attributes:
        path: the image file.
        name: the name of the image in messages to the user: its path in the dataset's folder, with forward slashes.
        repeats: the number of times that an epoch shows the image, according to the name of its folder.
    """

    path: Path
    name: str
    repeats: int = 1


def find_images(folder: str | Path) -> tuple[FoundImage, ...]:
    """List the images of a folder and its kohya-style subfolders, in natural order: 2.png before 10.png.

    The order depends only on the names, so it is the same on every machine. Other subfolders, hidden files and masks
    are skipped.

    Raises:
        CrucibleError: the folder is missing, cannot be opened, or contains no images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise _no_folder(folder)
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        images = [FoundImage(entry, entry.name) for entry in entries if _is_image(entry)]
        for subfolder, repeats in _repeats_folders(entries):
            inside = (entry for entry in subfolder.iterdir() if not entry.name.startswith(".") and _is_image(entry))
            images += [FoundImage(entry, f"{subfolder.name}/{entry.name}", repeats) for entry in inside]
    except OSError as error:
        raise CrucibleError(
            f"The image folder {folder} cannot be opened ({error.strerror or error}). Check its permissions."
        ) from error
    images = [image for image in images if not _is_mask(image.path)]
    if not images:
        raise _no_images(folder, entries)
    return tuple(sorted(images, key=lambda image: _natural_key(image.name)))


def find_mask(image_path: Path) -> Path | None:
    """Return the mask file of an image, <name>.mask.png or <name>-masklabel.png beside it, or None."""
    for ending in MASK_ENDINGS:
        path = image_path.with_name(f"{image_path.stem}{ending}.png")
        if is_file(path):
            return path
    return None


def is_file(path: Path) -> bool:
    """Return whether a path is that of a file. A name too long for the file system is that of none."""
    try:
        return path.is_file()
    except OSError:
        return False


def folder_signature(folder: str | Path) -> str:
    """Return a hash that changes when an image, caption or mask in a dataset folder does, without reading the files.

    It is computed from names, sizes and modification times, so it is only meaningful on the same machine. A folder
    that cannot be read has a signature too.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    known = {*CAPTION_EXTENSIONS, *METADATA_EXTENSIONS}
    try:
        entries = sorted(folder.iterdir())
        entries += [entry for subfolder, _ in _repeats_folders(entries) for entry in sorted(subfolder.iterdir())]
    except OSError:
        return digest.hexdigest()
    for entry in entries:
        if entry.suffix in known or entry.suffix.lower() in IMAGE_EXTENSIONS:
            try:
                facts = entry.stat()
            except OSError:
                continue
            line = f"{entry.relative_to(folder)}\0{facts.st_size}\0{facts.st_mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _repeats_folders(entries: Sequence[Path]) -> Iterator[tuple[Path, int]]:
    for entry in sorted(entries):
        match = REPEATS_FOLDER.fullmatch(entry.name)
        if match and 0 < int(match[1]) <= 10_000 and entry.is_dir() and not _leads_back(entry):
            yield entry, int(match[1])


def _leads_back(folder: Path) -> bool:
    """Return whether a folder is a link to its parent folder or to one further up."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _is_mask(path: Path) -> bool:
    """Return whether a file is the mask of an image in the same folder."""
    for ending in MASK_ENDINGS:
        stem = path.stem.removesuffix(ending)
        if path.suffix.lower() == ".png" and stem != path.stem and stem:
            others = path.parent.glob(f"{glob.escape(stem)}.*")
            return any(other.stem == stem and other != path and _is_image(other) for other in others)
    return False


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file()


def _natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that compares numbers by value and letters without case, and then the names themselves."""
    name = unicodedata.normalize("NFC", name)  # macOS writes decomposed letters
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _no_folder(folder: Path) -> CrucibleError:
    if folder.exists():
        return CrucibleError(
            f"The image folder {folder.absolute()} is a file. Give the folder that contains the images: "
            f"{folder.absolute().parent}"
        )
    return CrucibleError(
        f"The image folder {folder.absolute()} does not exist, so there is nothing to train on. "
        f"{nearest_path(folder.absolute())} Correct the path, or put the images there."
    )


def _no_images(folder: Path, entries: list[Path]) -> CrucibleError:
    what = f"The image folder {folder.absolute()} contains no images"
    known = ", ".join(sorted(IMAGE_EXTENSIONS))
    if not entries:
        return CrucibleError(f"{what}; it is empty. Put images ({known}) into it, or choose another folder.")
    subfolders = [entry for entry in entries if entry.is_dir()]
    images_in = {sub: sum(map(_is_image, sub.iterdir())) for sub in subfolders}
    fullest = max(subfolders, key=lambda sub: (images_in[sub], sub.name), default=None)
    if fullest is not None and images_in[fullest]:
        found = ", ".join(f"{sub.name} ({count})" for sub, count in sorted(images_in.items())[:5] if count)
        return CrucibleError(
            f"{what} itself, only subfolders that do: {found}. Subfolders are not searched, so that nothing "
            f"is trained by accident. Choose one of them, for example {fullest.absolute()}"
        )
    kinds = Counter(entry.suffix.lower() or "no extension" for entry in entries if not entry.is_dir())
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or f"{len(subfolders)} subfolders"
    return CrucibleError(
        f"{what}, only {found}. Supported formats are {known}. Convert the files, or choose another folder."
    )
