"""Matching files to the images they are about, by their names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..listing import list_folder
from .file_kinds import CAPTION_EXTENSIONS, extension_of, has_image_name

DOUBTFUL = 2
"""The doubt about a name that only nearly fits."""


def match_captions(images: Sequence[Path], texts: Iterable[Path]) -> dict[Path, tuple[Path, ...]]:
    """Find the caption files of the images of one folder, in order of precedence.

    The name of a caption file is that of its image with another ending (photo.txt), or with a further one
    (photo.jpg.txt). Only for images without such a file, one is looked for with two endings (photo.txt.txt), or whose
    name differs in case, in spaces around it or in the form of accented letters, where it can only be of one image.

    Returns:
        The caption files by image; an image without one is left out.
    """
    names = Names(images)
    found: dict[Path, list[tuple[int, int, str, Path]]] = {}
    for text in texts:
        stem = Path(text.name.removesuffix(text.suffix))
        owners, doubt = names.owners(stem.name)
        if not owners and is_text(stem):
            owners, doubt = names.owners(stem.name.removesuffix(stem.suffix))
            doubt += DOUBTFUL
        rank = CAPTION_EXTENSIONS.index(extension_of(text))
        for image in owners:
            # Lower case comes first, as on systems where both spellings are the same file.
            found.setdefault(image, []).append((doubt, rank, text.name.swapcase(), text))
    matched = {}
    for image, files in found.items():
        sure = [file for file in files if file[0] < DOUBTFUL]
        matched[image] = tuple(path for *_, path in sorted(sure or files))
    return matched


def caption_files(images: Iterable[Path]) -> dict[Path, tuple[Path, ...]]:
    """Return the caption files of each image, in order of precedence; there may be none.

    The images may be in several folders, which are listed.
    """
    by_folder: dict[Path, list[Path]] = {}
    for image in images:
        by_folder.setdefault(image.parent, []).append(image)
    found: dict[Path, tuple[Path, ...]] = {}
    for folder, wanted in by_folder.items():
        try:
            files = list_folder(folder, depth=0).files
        except OSError:  # whoever reads the images says so
            files = ()
        named = [file for file in files if has_image_name(file)]
        matched = match_captions(list(dict.fromkeys([*wanted, *named])), filter(is_text, files))
        found |= {image: matched.get(image, ()) for image in wanted}
    return found


def is_text(path: Path) -> bool:
    """Return whether a file is called as captions are."""
    return extension_of(path) in CAPTION_EXTENSIONS


class Names:
    """The names of the images of one folder, by which other files are matched to them."""

    def __init__(self, images: Iterable[Path]) -> None:
        self._stems: dict[str, list[Path]] = {}
        self._wholes: dict[str, list[Path]] = {}
        self._spellings: dict[str, list[Path]] = {}
        for image in images:
            self._stems.setdefault(composed(image.stem), []).append(image)
            self._wholes.setdefault(composed(image.name), []).append(image)
            for name in {spelling(image.stem), spelling(image.name)}:
                self._spellings.setdefault(name, []).append(image)

    def owners(self, name: str) -> tuple[Sequence[Path], int]:
        """Return the images that a name without ending belongs to, and how much doubt there is about it.

        Several images may have a name with different endings. If the name is spelt otherwise, it belongs to a single
        image or to none.

        Returns:
            The images, and 0 for the same name, 1 for that with the image's own ending, or `DOUBTFUL`.
        """
        if exact := self._stems.get(composed(name)):
            return exact, 0
        if exact := self._wholes.get(composed(name)):
            return exact, 1
        alike = self._spellings.get(spelling(name), [])
        return (alike if len(alike) == 1 else []), DOUBTFUL


def composed(name: str) -> str:
    """Return a name with accented letters in the form of a single character, as most systems write them."""
    return unicodedata.normalize("NFC", name)


def spelling(name: str) -> str:
    """Return what is left of a name if case, spaces around it and the form of accented letters do not matter."""
    return composed(name).casefold().strip()
