"""Writing a dataset as folders from which exactly the same one is loaded again, on any computer."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ...config.data_settings import DataSettings
from ...errors import CrucibleError
from ...files.atomic import write_whole
from .dataset import ImageDataset
from .decode import unchanged
from .examples import MIDDLE, View, fixed_examples, training_samples
from .load import load_dataset
from .metadata_files import METADATA_FILES
from .scan import natural_key
from .training_image import TrainingImage

IMAGES, REGULARIZATION, ROWS = "images", "regularization", "rows.csv"
"""The folders of the training images and of the regularization images, and the table of what becomes of each."""

WHAT = "An image of the saved run"
"""The subject of the first sentence of an error while writing."""


@dataclass(frozen=True)
class SavedImage:
    """An image that was written.

    Attributes:
        image: the image.
        split: what it is for: train, validation or regularization.
        folder: the folder that it was written to, `IMAGES` or `REGULARIZATION`.
        name: its path in that folder, with forward slashes.
        mask: the path of its mask in that folder; "" if it has none or is its own.
        is_file: whether it is a file that was there before, and not a picture of another node.
    """

    image: TrainingImage
    split: str
    folder: str
    name: str
    mask: str
    is_file: bool


def save_dataset(
    dataset: ImageDataset, folder: Path, progress: Callable[[int, int], None] = lambda *_: None
) -> tuple[list[SavedImage], DataSettings]:
    """Write the images, masks and captions of a dataset, and check that the same dataset is loaded from them.

    The files are copied byte for byte. Captions are written as they are trained, with trigger word, prefix and suffix.

    Args:
        dataset: the dataset, with its images for validation held out.
        folder: an existing folder.
        progress: a function called with (done, total) after every image; it may raise to stop.

    Returns:
        What was written, and the settings that load it, whose paths are relative to the folder.

    Raises:
        CrucibleError: a file cannot be read or written, has changed since it was checked, or what was written would be
            loaded as another dataset.
    """
    splits = {id(image): "validation" for image in dataset.validation}
    everything = sorted((*dataset.images, *dataset.validation), key=lambda image: natural_key(image.name))
    saved = [*_named(everything, IMAGES, splits), *_named(dataset.regularization, REGULARIZATION, {})]
    for done, one in enumerate(saved, start=1):
        _copy(one, folder / one.folder)
        progress(done, len(saved))
    for part in dict.fromkeys(one.folder for one in saved):
        rows = [{"file_name": one.name, "text": list(one.image.captions)} for one in saved if one.folder == part]
        lines = b"".join(map(_line, rows))
        write_whole(folder / part / METADATA_FILES[0], lines, what="The captions of the saved run")
    changes = {
        "train_data_dir": IMAGES,
        "reg_data_dir": REGULARIZATION if dataset.regularization else None,
        "metadata_path": None,
        "caption_source": "metadata",
        # The captions have these already. The trigger word stays, because it is not added where it is.
        "caption_prefix": "",
        "caption_suffix": "",
        "captions_per_line": False,
    }
    settings = dataset.settings.model_copy(update=changes)
    _require_same(dataset, settings, folder)
    return saved, settings


def rows_table(saved: Sequence[SavedImage], dataset: ImageDataset, resolution: int) -> str:
    """Return a table, as CSV, of what becomes of each image: its part, its sizes, its crops, its mask and its repeats.

    Args:
        resolution: the resolution that the dataset is trained at if it does not set one.
    """
    examples = [
        *training_samples(dataset, resolution),
        *fixed_examples(dataset.settings, dataset.validation, resolution),
    ]
    views: dict[Path, list[View]] = {}
    for example in examples:
        for view in example.views:
            if view not in views.setdefault(view.path, []):
                views[view.path].append(view)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["file", "split", "repeats", "captions", "width", "height", "trained at", "crops", "mirrored", "mask", "origin"]
    )
    for one in saved:
        image, seen = one.image, views.get(one.image.path, [])
        table.writerow(
            [
                f"{one.folder}/{one.name}",
                one.split,
                image.repeats,
                len(image.captions),
                image.width,
                image.height,
                " ".join(dict.fromkeys(f"{view.size[0]}x{view.size[1]}" for view in seen)),
                " ".join(dict.fromkeys(_crop(view) for view in seen)),
                "half of the time" if any(view.mirrored for view in seen) else "no",
                "its alpha channel" if image.mask == image.path else one.mask and f"{one.folder}/{one.mask}",
                f"file {image.name}" if one.is_file else f"{image.name} of a node",
            ]
        )
    return text.getvalue()


def _crop(view: View) -> str:
    """Return how an image is cropped: in the middle, or how much of what is cut is cut from the left and the top."""
    return "middle" if view.crop == MIDDLE else f"left:{view.crop[0]:g},top:{view.crop[1]:g}"


def _named(images: Sequence[TrainingImage], folder: str, splits: dict[int, str]) -> Iterator[SavedImage]:
    """Yield images with the names to write them under: their own, or their numbers if they come from no folder."""
    roots = [_root(image) for image in images]
    own = all(root is not None for root in roots)
    digits = len(str(len(images)))
    for number, (image, root) in enumerate(zip(images, roots, strict=True), start=1):
        name = image.name if own else f"{number:0{digits}d}{image.path.suffix.lower()}"
        mask = ""
        if image.mask is not None and image.mask != image.path:
            beside = f"{PurePath(name).with_suffix('').as_posix()}.mask{image.mask.suffix}"
            is_inside = own and root is not None and image.mask.is_relative_to(root)
            mask = image.mask.relative_to(root or "").as_posix() if is_inside else beside
        split = "regularization" if folder == REGULARIZATION else splits.get(id(image), "train")
        yield SavedImage(image, split, folder, name, mask, own)


def _line(row: dict[str, Any]) -> bytes:
    try:
        return f"{json.dumps(row, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:  # half a character in the name of a file
        return f"{json.dumps(row)}\n".encode()


def _root(image: TrainingImage) -> Path | None:
    """Return the folder that the name of an image is its path in; None for one that is called otherwise."""
    path, name = image.path.as_posix(), image.name
    return Path(path[: -len(name)]) if path.endswith(f"/{name}") else None


def _copy(one: SavedImage, folder: Path) -> None:
    image = one.image
    write_whole(folder / one.name, unchanged(image.path, image.facts.content), what=WHAT)
    if one.mask and image.mask is not None:
        write_whole(folder / one.mask, image.mask.read_bytes(), what="A mask of the saved run")


def _require_same(dataset: ImageDataset, settings: DataSettings, folder: Path) -> None:
    """Check that the settings load the same examples as the dataset has.

    Raises:
        CrucibleError: they do not.
    """
    paths = {
        name: str(folder / value) for name in ("train_data_dir", "reg_data_dir") if (value := getattr(settings, name))
    }
    loaded = load_dataset(settings.model_copy(update=paths))
    for part in ("images", "validation", "regularization"):
        before, after = ([_content(image) for image in getattr(one, part)] for one in (dataset, loaded))
        if part == "validation":
            before, after = sorted(before), sorted(after)
        if before != after:
            differing = [image.name for image, a in zip(getattr(dataset, part), before, strict=True) if a not in after]
            raise CrucibleError(
                f"The run could not be saved so that it trains the same elsewhere: {part} would have "
                f"{len(after)} images instead of {len(before)}, or other captions, masks or repeats "
                f"({', '.join(differing[:3]) or 'in another order'}). Nothing was kept. Please report this, with what "
                "is special about these images."
            )


def _content(image: TrainingImage) -> tuple[str, str, int, tuple[str, ...]]:
    mask = "" if image.mask is None else hashlib.sha256(image.mask.read_bytes()).hexdigest()
    return image.facts.content, mask, image.repeats, image.captions
