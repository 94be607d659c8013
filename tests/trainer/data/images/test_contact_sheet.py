"""A contact sheet shows images in the order of the dataset if they all fit, and marked ones first if they do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lora_crucible.config import DataSettings
from lora_crucible.data.images.contact_sheet import contact_sheet
from lora_crucible.data.images.dataset import ImageDataset
from lora_crucible.data.images.load import load_dataset
from PIL import Image

SHADES = (40, 80, 120, 160, 200)


@pytest.fixture
def dataset(tmp_path: Path) -> ImageDataset:
    """Five images from dark to light, the lightest of them held out for validation."""
    for number, shade in enumerate(SHADES):
        Image.new("RGB", (64, 64), (shade, 0, 0)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"number {number}")
    whole = load_dataset(DataSettings(train_data_dir=str(tmp_path)))
    return replace(whole, images=whole.images[:4], validation=whole.images[4:])


def shades(dataset: ImageDataset, limit: int) -> list[int]:
    """Return the red of each thumbnail of a sheet with a single row, from left to right."""
    sheet = contact_sheet(dataset, limit=limit, columns=len(SHADES), thumbnail=64)
    width = (sheet.width - 12) // min(limit, len(SHADES))
    return [sheet.getpixel((12 + number * width + 32, 12 + 32))[0] for number in range(min(limit, len(SHADES)))]


@pytest.mark.parametrize("limit", [5, 6])
def test_images_that_all_fit_keep_their_order(dataset: ImageDataset, limit: int) -> None:
    assert shades(dataset, limit) == pytest.approx(SHADES, abs=2)


def test_on_a_smaller_sheet_marked_images_come_before_an_even_selection_of_the_others(dataset: ImageDataset) -> None:
    assert shades(dataset, 3) == pytest.approx([200, 40, 120], abs=2)
