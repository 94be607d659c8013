"""Finding the images in a dataset folder, with the caption files and masks that belong to them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...errors import CrucibleError
from ..listing import Listing, list_folder
from .file_kinds import has_image_name, is_image, unread_image
from .masks import MASK_FOLDERS, match_mask_folder, match_masks
from .no_images import no_folder, no_images
from .sidecars import composed, is_text, match_captions

REPEATS_FOLDER = re.compile(r"(\d+)_(.+)", re.DOTALL)
"""The name, as used by kohya, of a folder whose images are shown several times per epoch."""

MOST_REPEATS = 10_000
"""A larger number in a folder's name is no number of repeats."""


@dataclass(frozen=True)
class FoundImage:
    """An image file of a dataset.

    Attributes:
        path: the image file.
        name: the name of the image in messages to the user: its path in the dataset's folder, with forward slashes.
        repeats: the number of times that an epoch shows the image, according to the name of its folder.
        texts: its caption files, in order of precedence.
        mask: its mask file, or None.
    """

    path: Path
    name: str
    repeats: int = 1
    texts: tuple[Path, ...] = ()
    mask: Path | None = None


@dataclass(frozen=True)
class DatasetFiles:
    """The files in a dataset folder, and what they are used for.

    Attributes:
        root: everything in the folder.
        searched: the folders whose images are used: the dataset's own, kohya-style subfolders, and those in which a
            table lists images.
        images: the images, in natural order.
        masks: all masks of images that are or could be read.
        texts: all caption files of such images.
        lonely_masks: masks that belong to no image.
        not_listed: images beside those that a table lists.
    """

    root: Listing
    searched: tuple[Listing, ...]
    images: tuple[FoundImage, ...]
    masks: frozenset[Path]
    texts: frozenset[Path]
    lonely_masks: tuple[Path, ...]
    not_listed: tuple[Path, ...]


def find_images(folder: str | Path, in_table: Iterable[str] = ()) -> tuple[FoundImage, ...]:
    """List the images of a folder and its kohya-style subfolders, in natural order: 2.png before 10.png.

    The order depends only on the names, so it is the same on every machine. Other subfolders, hidden files and masks
    are skipped.

    Args:
        in_table: the names of images in a table, with folders; those in other subfolders are images too.

    Raises:
        CrucibleError: the folder is missing, cannot be opened, or contains no images.
    """
    return find_files(folder, in_table).images


def find_files(folder: str | Path, in_table: Iterable[str] = (), *, masks_expected: bool = False) -> DatasetFiles:
    """Find the images of a dataset folder as `find_images` does, and what else belongs to them.

    Args:
        in_table: the names of images in a table, with folders; those in other subfolders are images too.
        masks_expected: whether files called as masks are masks even if there is no image for them.

    Raises:
        CrucibleError: the folder is missing, cannot be opened, or contains no images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise no_folder(folder)
    try:
        root = list_folder(folder)
    except OSError as error:
        raise CrucibleError(
            f"The image folder {folder} cannot be opened ({error.strerror or error}). Check its permissions."
        ) from error
    repeats = {root.path: 1} | dict(_repeats_folders(root))
    in_table_folders = _in_subfolders(root, in_table)
    parents = {*repeats, *(path.parent for path in in_table_folders)}
    searched = [one for one in root.walk() if one.path in parents]
    pictures = {
        one.path: [file for file in (*one.files, *one.broken) if is_image(file) or unread_image(file)]
        for one in searched
    }
    captions: dict[Path, tuple[Path, ...]] = {}
    for one in searched:
        captions |= match_captions(pictures[one.path], filter(is_text, one.files))
    masks, lonely = _masks(root, searched, pictures, captions, all_endings=masks_expected)
    no_images_themselves = {*lonely, *(mask for found in masks.values() for mask in found)}
    images: list[FoundImage] = []
    not_listed: list[Path] = []
    for one in searched:
        for path in pictures[one.path]:
            if path in no_images_themselves or path in one.broken or unread_image(path):
                continue
            if one.path not in repeats and path not in in_table_folders:
                not_listed.append(path)
                continue
            mask = next(iter(masks.get(path, ())), None)
            texts = captions.get(path, ())
            images.append(FoundImage(path, one.named(path), repeats.get(one.path, 1), texts, mask))
    if not images:
        raise no_images(root)
    images.sort(key=lambda image: natural_key(image.name))
    return DatasetFiles(
        root=root,
        searched=tuple(searched),
        images=tuple(images),
        masks=frozenset(no_images_themselves.difference(lonely)),
        texts=frozenset(text for found in captions.values() for text in found),
        lonely_masks=tuple(lonely),
        not_listed=tuple(not_listed),
    )


def _repeats_folders(root: Listing) -> Iterator[tuple[Path, int]]:
    for one in root.folders:
        match = REPEATS_FOLDER.fullmatch(one.path.name)
        if match and 0 < int(match[1]) <= MOST_REPEATS:
            yield one.path, int(match[1])


def _masks(
    root: Listing,
    searched: Sequence[Listing],
    pictures: Mapping[Path, Sequence[Path]],
    captions: Mapping[Path, Sequence[Path]],
    *,
    all_endings: bool,
) -> tuple[dict[Path, list[Path]], list[Path]]:
    """Find the masks of all images, beside them first, and the masks that belong to no image.

    A folder of masks is for the images of the folder it is in, and that in the dataset's own folder is for all; its
    subfolders are for the images in the folder of that name.
    """
    found: dict[Path, list[Path]] = {}
    lonely: list[Path] = []

    def add(matched: tuple[dict[Path, list[Path]], list[Path]]) -> None:
        for image, masks in matched[0].items():
            found.setdefault(image, []).extend(masks)
        lonely.extend(matched[1])

    for one in searched:
        named_alike = {text.with_suffix("") for image in pictures[one.path] for text in captions.get(image, ())}
        captioned = {image for image in pictures[one.path] if image.with_suffix("") in named_alike}
        add(match_masks(one.files, pictures[one.path], captioned, all_endings=all_endings))
    everything = [image for those in pictures.values() for image in those]
    for one in searched:
        for of_masks in (sub for sub in one.folders if sub.path.name.lower() in MASK_FOLDERS):
            images = pictures[one.path] if one.name else everything
            add(match_mask_folder(filter(is_image, of_masks.files), images))
            for inner in of_masks.folders:
                namesakes = (other for other in searched if other.path.name == inner.path.name)
                images = [image for other in namesakes for image in pictures[other.path]]
                add(match_mask_folder(filter(is_image, inner.files), images))
    return found, lonely


def _in_subfolders(root: Listing, names: Iterable[str]) -> set[Path]:
    """Return the images in subfolders that a table lists.

    Tables made on other computers have paths of theirs, such as /content/cats/images/1.png: the names of file and
    folder tell the image where no other one has both.
    """
    wanted = {name for name in map(composed, names) if "/" in name}
    if not wanted:
        return set()
    ends: dict[tuple[str, ...], set[str]] = {}
    for name in wanted:
        ends.setdefault(PurePosixPath(name).parts[-2:], set()).add(name)
    found: dict[str, list[tuple[bool, Path]]] = {}
    for one in root.walk():
        for file in one.files if one.name else ():
            name = composed(one.named(file))
            for row in ends.get(PurePosixPath(name).parts[-2:], ()):
                if has_image_name(file) or row == name:
                    found.setdefault(row, []).append((row == name, file))
    chosen = set()
    for files in found.values():
        exact = [file for same, file in files if same]
        chosen.update(exact or ([files[0][1]] if len(files) == 1 else []))
    return chosen


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that compares numbers by value and letters without case, and then the names themselves."""
    name = unicodedata.normalize("NFC", name)  # macOS writes decomposed letters
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name
