"""What can be seen in a picture does not depend on its contrast, format, or bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lora_crucible.data.images.image_facts import find_facts
from lora_crucible.data.images.image_measures import detail, difference_hash
from PIL import Image, ImageDraw, ImageFilter

from .scenes import KINDS, pictures

BLURRED = 0.06


def faint() -> Image.Image:
    """Make a picture whose values differ by 6 of 255 alone."""
    image = Image.new("RGB", (400, 400), (200, 200, 200))
    ImageDraw.Draw(image).ellipse((100, 100, 300, 300), fill=(206, 206, 206))
    return image


def equally_bright() -> Image.Image:
    """Make a picture of a red and a green that have the same brightness."""
    image = Image.new("RGB", (400, 400), (150, 0, 0))
    ImageDraw.Draw(image).rectangle((100, 100, 300, 300), fill=(0, 76, 0))
    return image


def dot() -> Image.Image:
    image = Image.new("RGB", (800, 800), "white")
    ImageDraw.Draw(image).ellipse((390, 390, 410, 410), fill="black")
    return image


@pytest.mark.parametrize("draw", [faint, equally_bright, dot])
def test_what_can_be_seen_is_not_blank(draw: type) -> None:
    assert not detail(draw()).blank


@pytest.mark.parametrize("colour", ["white", "black", (102, 177, 50)])
@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif"])
def test_a_single_colour_is_blank(tmp_path: Path, colour: str, ending: str) -> None:
    Image.new("RGB", (400, 300), colour).save(tmp_path / f"a.{ending}", **({"quality": 40} if ending == "webp" else {}))
    assert find_facts(tmp_path / f"a.{ending}").blank


def test_an_empty_page_is_blank(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(60000, 300, (600, 500)).astype(np.uint16)
    Image.fromarray(noise).save(tmp_path / "a.tif")
    assert find_facts(tmp_path / "a.tif").blank


def test_white_on_transparency_is_blank(tmp_path: Path) -> None:
    logo = Image.new("RGBA", (300, 300), (255, 255, 255, 0))
    ImageDraw.Draw(logo).ellipse((50, 50, 250, 250), fill=(255, 255, 255, 255))
    logo.save(tmp_path / "a.png")
    assert find_facts(tmp_path / "a.png").blank


@pytest.mark.parametrize("kind", KINDS)
def test_focus_tells_blur_from_lack_of_detail(kind: str) -> None:
    for image in pictures(kind, count=4):
        eight = Image.fromarray((np.asarray(image) // 257).astype(np.uint8)) if image.mode == "I;16" else image
        sharp = eight.convert("RGB")
        assert detail(sharp).focus > BLURRED
        assert detail(sharp.filter(ImageFilter.GaussianBlur(8))).focus < BLURRED


def test_blurred_pictures_are_less_sharp() -> None:
    noise = Image.effect_noise((400, 300), 90).convert("RGB")
    assert detail(noise.filter(ImageFilter.GaussianBlur(3))).sharpness < 0.1 * detail(noise).sharpness


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 400), (33, 33)])
def test_tiny_and_narrow_pictures_are_measured(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    assert 0 <= detail(Image.fromarray(noise)).flatness <= 1


def test_the_hash_stays_when_size_and_quality_change() -> None:
    noise = [np.random.default_rng(seed).integers(0, 256, (9, 12), dtype=np.uint8) for seed in (0, 1)]
    one, other = (Image.fromarray(values).resize((800, 600), Image.Resampling.BICUBIC) for values in noise)
    assert (difference_hash(one) ^ difference_hash(one.resize((400, 300)))).bit_count() <= 4
    assert (difference_hash(one) ^ difference_hash(other)).bit_count() > 8
