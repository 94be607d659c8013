"""Finds the images of a dataset folder."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from pathlib import Path

from ..errors import CrucibleError
from ..suggestions import nearest_path
from .captions import CAPTION_EXTENSIONS

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def find_images(folder: str | Path) -> tuple[Path, ...]:
    """Lists the image files of a folder (not of its subfolders), in natural order: 2.png before 10.png.

    The order depends on the names alone, so that it is the same on every machine. Hidden files are left out.

    Raises:
        CrucibleError: the folder is missing, cannot be opened, or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise _no_folder(folder)
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        images = [entry for entry in entries if _is_image(entry)]
    except OSError as error:
        raise CrucibleError(
            f"The image folder {folder} cannot be opened ({error.strerror or error}). Check that you may read it."
        ) from error
    if not images:
        raise _no_images(folder, entries)
    return tuple(sorted(images, key=lambda path: _natural_key(path.name)))


def folder_signature(folder: str | Path) -> str:
    """Hash that changes when an image or caption of a folder does, without reading the files.

    Made of names, sizes and times of writing, so it means something on this machine only. A folder that
    cannot be read has a signature too.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError:
        return digest.hexdigest()
    for entry in entries:
        if entry.suffix in CAPTION_EXTENSIONS or entry.suffix.lower() in IMAGE_EXTENSIONS:
            try:
                facts = entry.stat()
            except OSError:
                continue
            line = f"{entry.name}\0{facts.st_size}\0{facts.st_mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file()


def _natural_key(name: str) -> tuple[list[str | int], str]:
    """Numbers by their value, letters without their case; the name itself decides between equals."""
    name = unicodedata.normalize("NFC", name)  # macOS writes decomposed letters
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _no_folder(folder: Path) -> CrucibleError:
    if folder.exists():
        return CrucibleError(
            f"The image folder {folder.absolute()} is a file. Give the folder that the images lie in: "
            f"{folder.absolute().parent}"
        )
    return CrucibleError(
        f"The image folder {folder.absolute()} does not exist, so there is nothing to train on. "
        f"{nearest_path(folder.absolute())} Correct the path, or put the images there."
    )


def _no_images(folder: Path, entries: list[Path]) -> CrucibleError:
    what = f"The image folder {folder.absolute()} holds no images"
    known = ", ".join(sorted(IMAGE_EXTENSIONS))
    if not entries:
        return CrucibleError(f"{what}; it is empty. Put images ({known}) into it, or give another folder.")
    subfolders = [entry for entry in entries if entry.is_dir()]
    images_in = {sub: sum(map(_is_image, sub.iterdir())) for sub in subfolders}
    fullest = max(subfolders, key=lambda sub: (images_in[sub], sub.name), default=None)
    if fullest is not None and images_in[fullest]:
        found = ", ".join(f"{sub.name} ({count})" for sub, count in sorted(images_in.items())[:5] if count)
        return CrucibleError(
            f"{what} itself, only subfolders that do: {found}. Subfolders are not searched, so that nothing "
            f"is trained by accident. Give one of them, for instance {fullest.absolute()}"
        )
    kinds = Counter(entry.suffix.lower() or "no extension" for entry in entries if not entry.is_dir())
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or f"{len(subfolders)} subfolders"
    return CrucibleError(f"{what}, but {found}. Images are {known}. Convert the files, or give another folder.")
