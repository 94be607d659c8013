"""A dataset as training sees it: readable images, each with its caption, in a fixed order."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..demo import DATASET_DIR, TRIGGER_WORD
from ..errors import CrucibleError
from .captions import read_caption, with_trigger_word
from .images import UnreadableImage, check_image
from .scan import find_images

DEMO = "demo"
"""Instead of a folder: the dataset that comes with the package."""

DEMO_RESOLUTION = 64

NAMES_SHOWN = 5
"""File names that a message lists before it only counts the rest."""


@dataclass(frozen=True)
class TrainingImage:
    """An image file that was found readable. `width` and `height` are in pixels, after EXIF rotation."""

    path: Path
    caption: str
    width: int
    height: int


@dataclass(frozen=True)
class Dataset:
    """Images with captions.

    Attributes:
        name: for people: the folder's name, or `demo`.
        images: in an order that is the same on every machine.
        resolution: that the dataset asks for, or None for the training's own.
        skipped: each image that was left out, with the reason.
        notes: what else was done that the user should know.
    """

    name: str
    folder: Path
    images: tuple[TrainingImage, ...]
    trigger_word: str
    resolution: int | None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """What `load_dataset` was given."""
        return DEMO if self.folder == DATASET_DIR else str(self.folder)

    @cached_property
    def fingerprint(self) -> str:
        """Hash over what training depends on: image files, captions, their order, resolution, trigger word.

        Where the folder lies, and when its files were written, does not count. Reads every image file.
        """
        digest = hashlib.sha256(f"{self.resolution}\0{self.trigger_word}\0".encode())
        for image in self.images:
            digest.update(hashlib.sha256(image.path.read_bytes()).digest())
            digest.update(hashlib.sha256(image.caption.encode("utf-8", "surrogatepass")).digest())
        return digest.hexdigest()


def load_dataset(folder: str | Path, *, trigger_word: str = "", resolution: int | None = None) -> Dataset:
    """Reads a folder of images with captions, and decodes every image once, so that none fails later.

    Args:
        folder: a folder, or `demo` for the one that comes with the package.
        trigger_word: put in front of every caption that does not hold it; the whole caption of an image
            that has none.
        resolution: handed on in the dataset; None leaves it to the training.

    Raises:
        CrucibleError: the folder cannot be used, no image can be read, or an image has no caption and there
            is no trigger word either.
    """
    if str(folder) == DEMO:
        name, folder = DEMO, DATASET_DIR
        trigger_word = trigger_word or TRIGGER_WORD
        resolution = resolution or DEMO_RESOLUTION
    elif not str(folder).strip():
        raise CrucibleError(
            "No image folder is given, so there is nothing to train on. Set train_data_dir to the folder of "
            f"your images, or to {DEMO} for the images that come with the package."
        )
    else:
        folder = Path(folder).expanduser().resolve()
        name = folder.name
    trigger_word = " ".join(trigger_word.split())
    paths = find_images(folder)
    sizes, skipped = _check_images(paths)
    if not sizes:
        raise CrucibleError(
            f"None of the {len(paths)} images in {folder} can be read, so there is nothing to train on:\n"
            f"{_listed(skipped, '  ')}\nReplace them by images that open in an image viewer."
        )
    captions = {path: read_caption(path) for path in sizes}
    without = [path.name for path, caption in captions.items() if caption is None]
    if without and not trigger_word:
        raise _missing_captions(folder, without, len(captions))
    images = tuple(
        TrainingImage(path, with_trigger_word(captions[path] or "", trigger_word), width, height)
        for path, (width, height) in sizes.items()
    )
    notes = _caption_notes(images, captions, without, trigger_word)
    return Dataset(name, folder, images, trigger_word, resolution, tuple(skipped), notes)


def _check_images(paths: tuple[Path, ...]) -> tuple[dict[Path, tuple[int, int]], list[str]]:
    """Returns width and height of the readable images, and a line for each of the others."""

    def check(path: Path) -> tuple[int, int] | str:
        try:
            return check_image(path)
        except UnreadableImage as error:
            return f"{path.name}: {error.reason}"

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(check, paths))
    sizes = {path: result for path, result in zip(paths, results, strict=True) if not isinstance(result, str)}
    return sizes, [result for result in results if isinstance(result, str)]


def _missing_captions(folder: Path, without: list[str], count: int) -> CrucibleError:
    example = Path(without[0]).with_suffix(".txt").name
    return CrucibleError(
        f"{len(without)} of {count} images in {folder} have no caption:\n{_listed(without, '  ')}\n"
        "Without captions the LoRA learns pictures that no prompt calls up. Write each caption into a text "
        f"file of the image's name ({example} for {without[0]}), or set a trigger word to be their caption."
    )


def _caption_notes(
    images: tuple[TrainingImage, ...], captions: dict[Path, str | None], without: list[str], trigger_word: str
) -> tuple[str, ...]:
    notes = []
    if without:
        names = _listed(without, "").replace("\n", ", ")
        notes.append(f'"{trigger_word}" is the whole caption of {len(without)} images that have none: {names}')
    added = sum(captions[image.path] not in (None, image.caption) for image in images)
    if added:
        notes.append(f'"{trigger_word}" was put in front of {added} captions that do not hold it')
    return tuple(notes)


def _listed(names: list[str], indent: str) -> str:
    lines = [f"{indent}{name}" for name in names[:NAMES_SHOWN]]
    if len(names) > NAMES_SHOWN:
        lines.append(f"{indent}and {len(names) - NAMES_SHOWN} more")
    return "\n".join(lines)
