"""Finding the images in a dataset folder, and the masks beside them."""

from __future__ import annotations

import glob
import hashlib
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import CrucibleError
from ...messages.suggestions import nearest_path
from ...messages.wording import listed

# fmt: off
IMAGE_EXTENSIONS = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif",
    ".avif", ".avifs", ".heic", ".heif", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".tga", ".icb", ".vda",
    ".vst", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi", ".psd", ".pcx", ".dds", ".ico",
})
# fmt: on
IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")
"""The first bytes of images whose files may have any ending."""

CAPTION_EXTENSIONS = (".txt", ".TXT", ".caption")
# fmt: off
KNOWN_ENDINGS = frozenset({
    ".txt", ".caption", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".md", ".npz",
    ".safetensors", ".zip",
})
# fmt: on
"""Endings of files that are no images, so that their content need not be looked at."""

RUBBISH = frozenset({"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini", "System Volume Information"})
"""The names of what operating systems leave in folders."""

MASK_ENDINGS = (".mask", "-masklabel", "_mask", "-mask")
"""The endings of a mask file's name, before its extension."""

MASK_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

SEARCHED_DEPTH = 3
"""How many folders deep images are looked for, to say which folder was probably meant."""

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


def find_images(folder: str | Path, in_table: Iterable[str] = ()) -> tuple[FoundImage, ...]:
    """List the images of a folder and its kohya-style subfolders, in natural order: 2.png before 10.png.

    The order depends only on the names, so it is the same on every machine. Other subfolders, hidden files and masks
    are skipped.

    Args:
        in_table: the names of images in a table, relative to the folder; those in other subfolders are images too.

    Raises:
        CrucibleError: the folder is missing, cannot be opened, or contains no images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise _no_folder(folder)
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        images = [FoundImage(entry, entry.name) for entry in entries if is_image(entry)]
        for subfolder, repeats in _repeats_folders(entries):
            inside = (entry for entry in subfolder.iterdir() if not entry.name.startswith(".") and is_image(entry))
            images += [FoundImage(entry, f"{subfolder.name}/{entry.name}", repeats) for entry in inside]
    except OSError as error:
        raise CrucibleError(
            f"The image folder {folder} cannot be opened ({error.strerror or error}). Check its permissions."
        ) from error
    images = [image for image in images if not _is_mask(image.path)]
    known = {image.path for image in images}
    for name in dict.fromkeys(in_table):
        path = folder / name
        if "/" in name and path not in known and _is_inside(path, folder) and is_file(path):
            images.append(FoundImage(path, name))
    if not images:
        raise _no_images(folder, entries)
    return tuple(sorted(images, key=lambda image: _natural_key(image.name)))


def find_mask(image_path: Path) -> Path | None:
    """Return the mask file of an image beside it, such as <name>.mask.png or <name>-masklabel.png, or None."""
    names = [f"{image_path.stem}{ending}{extension}" for ending in MASK_ENDINGS for extension in MASK_EXTENSIONS]
    for name in (*names, f"{image_path.stem}.mask"):
        path = image_path.with_name(name)
        if is_file(path) and _is_mask(path):
            return path
    return None


def is_file(path: Path) -> bool:
    """Return whether a path is that of a file. A name too long for the file system is that of none."""
    try:
        return path.is_file()
    except OSError:
        return False


def folder_signature(folder: str | Path) -> str:
    """Return a hash that changes when a file in a dataset folder or its subfolders does, without reading the files.

    It is computed from names, sizes and modification times, so it is only meaningful on the same machine. A folder
    that cannot be read has a signature too.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    try:
        entries = sorted(folder.iterdir())
        for entry in tuple(entries):
            if entry.is_dir() and not entry.name.startswith(".") and not _leads_back(entry):
                entries += sorted(entry.iterdir())
    except OSError:
        return digest.hexdigest()
    for entry in entries:
        try:
            facts = entry.stat()
        except OSError:
            continue
        if not entry.name.startswith(".") and stat.S_ISREG(facts.st_mode):
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
    """Return whether a file is the mask of an image in the same folder, and not an image with a caption of its own."""
    endings = MASK_ENDINGS if path.suffix.lower() in MASK_EXTENSIONS else ()
    stems = [path.stem.removesuffix(ending) for ending in endings if path.stem.endswith(ending)]
    if path.suffix == ".mask":
        stems = [path.stem]
    for stem in filter(None, stems):
        if any(is_file(path.with_suffix(extension)) for extension in CAPTION_EXTENSIONS):
            return False
        others = [other for other in path.parent.glob(f"{glob.escape(stem)}.*") if other.stem == stem and other != path]
        return any(other.suffix != ".mask" and is_image(other) for other in others)
    return False


def is_image(path: Path) -> bool:
    """Return whether a file is an image by its ending, or by its first bytes if the ending says nothing."""
    ending = path.suffix.lower()
    if ending in IMAGE_EXTENSIONS:
        return path.is_file()
    if ending in KNOWN_ENDINGS or not is_file(path):
        return False
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(IMAGE_STARTS) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def _is_inside(path: Path, folder: Path) -> bool:
    return ".." not in path.parts and path.is_relative_to(folder)


def _natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that compares numbers by value and letters without case, and then the names themselves."""
    name = unicodedata.normalize("NFC", name)  # macOS writes decomposed letters
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def usable_folders(folder: Path, depth: int = SEARCHED_DEPTH) -> dict[Path, int]:
    """Return the folders below a folder that can be chosen as datasets, with the numbers of their images, in order.

    A folder with kohya-style subfolders is one of them; these subfolders themselves are not.
    """
    found: dict[Path, int] = {}
    try:
        subfolders = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return found
    for sub in subfolders:
        if sub.name in RUBBISH or _leads_back(sub):
            continue
        try:
            entries = list(sub.iterdir())
            inside = [entry for repeats, _ in _repeats_folders(entries) for entry in repeats.iterdir()]
        except OSError:
            continue
        count = sum(is_image(entry) for entry in (*entries, *inside))
        if count:
            found[sub] = count
        elif depth > 1:
            found |= usable_folders(sub, depth - 1)
    return found


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
    usable = usable_folders(folder)
    if usable:
        best = max(usable, key=lambda sub: usable[sub])
        shown = listed([f"{sub.relative_to(folder).as_posix()} ({count})" for sub, count in usable.items()])
        return CrucibleError(
            f"{what} itself, only subfolders that do: {shown}. Subfolders are not searched, so that nothing "
            f"is trained by accident. Choose one of them, for example {best.absolute()}"
        )
    kinds = Counter(entry.suffix.lower() or "no extension" for entry in entries if not entry.is_dir())
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or f"{len(subfolders)} subfolders"
    return CrucibleError(
        f"{what}, only {found}. Supported formats are {known}. Convert the files, or choose another folder."
    )
