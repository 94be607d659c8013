"""Clean folders of ten kinds of pictures get no warning; the faults of their dirty twins are named, and no more."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lora_crucible.config import DataSettings
from lora_crucible.data.findings import Finding
from lora_crucible.data.images.load import load_dataset
from lora_crucible.data.images.report import dataset_report
from PIL import Image, ImageFilter

from .scenes import COUNT, KINDS, pictures

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "photos": ("jpg", {"quality": 88}),
    "drawings": ("png", {"compress_level": 1}),
    "icons": ("png", {"compress_level": 1}),
    "one subject on white": ("jpg", {"quality": 92}),
    "screenshots": ("png", {"compress_level": 1}),
    "scans": ("tif", {}),
    "paintings": ("webp", {"quality": 90}),
    "textures": ("jpg", {"quality": 85}),
    "grey": ("jpg", {"quality": 90}),
    "letters": ("png", {"compress_level": 1}),
}
"""How pictures of a kind are usually saved."""

DUPLICATE, RESAVED, BLANK, BLURRED, WITHOUT_CAPTION = "duplicate", "resaved", "blank", "blurred", "without caption"
BLUR = 6
"""The standard deviation of the blur in pixels; the pictures have about 512."""


@lru_cache(maxsize=len(KINDS))
def drawn(kind: str) -> Sequence[Image.Image]:
    """Draw the pictures of a clean folder, and more for the faults of its twin."""
    return pictures(kind, count=COUNT + 3)


def save(kind: str, image: Image.Image, folder: Path, name: str, caption: str | None) -> None:
    ending, options = FORMATS[kind]
    image.save(folder / f"{name}.{ending}", **options)
    if caption is not None:
        (folder / f"{name}.txt").write_text(caption)


def clean(kind: str, folder: Path) -> None:
    for number, image in enumerate(drawn(kind)[:COUNT]):
        save(kind, image, folder, f"{number:02}", f"sks, number {number} of the {kind}, place {number * 7 % 30}")


def eight_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)) if image.mode == "I;16" else image


def as_before(image: Image.Image, like: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257) if like.mode == "I;16" else image


def dirty(kind: str, folder: Path, duplicate: str) -> None:
    ending = FORMATS[kind][0]
    like = drawn(kind)[COUNT + 2]  # not a picture of cloth, which would be blank when it is blurred
    sharp = eight_bits(like)
    if duplicate == DUPLICATE:
        shutil.copy(folder / f"03.{ending}", folder / f"{DUPLICATE}.{ending}")
        (folder / f"{DUPLICATE}.txt").write_text("sks, once more, in the hall")
    else:
        smaller = eight_bits(drawn(kind)[3])
        smaller = smaller.resize((smaller.width * 15 // 16, smaller.height * 15 // 16), Image.Resampling.LANCZOS)
        smaller.convert("RGB").save(folder / f"{RESAVED}.jpg", quality=75)
        (folder / f"{RESAVED}.txt").write_text("sks, once more, in the hall")
    empty = as_before(Image.new(sharp.mode, sharp.size, "white"), like)
    save(kind, empty, folder, BLANK, "sks, in the snow")
    blurred = as_before(sharp.filter(ImageFilter.GaussianBlur(BLUR)), like)
    save(kind, blurred, folder, BLURRED, "sks, behind a window")
    save(kind, drawn(kind)[COUNT], folder, WITHOUT_CAPTION, None)


def warnings(folder: Path) -> list[Finding]:
    dataset = load_dataset(DataSettings(train_data_dir=str(folder)))
    return [one for one in dataset_report(dataset, resolution=512).findings if one.severity != "note"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_folder_gets_no_warning(kind: str, tmp_path: Path) -> None:
    clean(kind, tmp_path)
    assert warnings(tmp_path) == []


@pytest.mark.parametrize("duplicate", [DUPLICATE, RESAVED])
@pytest.mark.parametrize("kind", KINDS)
def test_the_faults_of_a_dirty_folder_are_named(kind: str, duplicate: str, tmp_path: Path) -> None:
    clean(kind, tmp_path)
    dirty(kind, tmp_path, duplicate)
    named = {one.kind: [Path(name).stem for name in one.images] for one in warnings(tmp_path)}
    pair = named.pop("near_duplicates")
    assert len(pair) == 1
    assert duplicate in pair[0]
    assert "03." in pair[0]
    assert named == {"blank": [BLANK], "blurred": [BLURRED], "no_caption": [WITHOUT_CAPTION]}
