"""Images are called near-duplicates if their pixels are, whatever their size, format and quality."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lora_crucible.data.images.duplicates import near_duplicates
from lora_crucible.data.images.image_facts import ImageFacts, find_facts
from lora_crucible.data.images.image_measures import COLOUR_SIDE, SMALL_SIDE
from lora_crucible.data.images.split import validation_indices
from PIL import Image, ImageDraw, ImageFont, ImageOps

from .scenes import pictures


@pytest.fixture
def photo() -> Image.Image:
    return pictures("photos", count=1)[0]


def groups(folder: Path, *pairs: tuple[str, Image.Image]) -> list[list[int]]:
    found = []
    for number, (ending, image) in enumerate(pairs):
        path = folder / f"{number}.{ending}"
        image.save(path, **({"quality": 60} if ending in ("jpg", "webp") else {}))
        found.append(find_facts(path))
    return near_duplicates(found)


@pytest.mark.parametrize(
    "changed",
    [
        lambda image: image.resize((300, 300), Image.Resampling.LANCZOS),
        lambda image: image.resize((900, 900), Image.Resampling.BICUBIC),
        lambda image: image.quantize(128).convert("RGB"),
        lambda image: image.point(lambda value: min(255, value + 4)),
    ],
    ids=["smaller", "larger", "palette", "a little brighter"],
)
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_the_same_picture(
    tmp_path: Path, photo: Image.Image, changed: Callable[[Image.Image], Image.Image], ending: str
) -> None:
    assert groups(tmp_path, ("png", photo), (ending, changed(photo))) == [[0, 1]]


@pytest.mark.parametrize(
    "changed",
    [
        ImageOps.mirror,
        ImageOps.flip,
        lambda image: image.crop((0, 0, 512, 384)),
        lambda image: image.crop((100, 100, 412, 412)),
        lambda image: Image.merge("RGB", image.split()[::-1]),
        lambda image: image.convert("L"),
    ],
    ids=["mirrored", "upside down", "cropped", "closer", "other colours", "grey"],
)
def test_another_picture(tmp_path: Path, photo: Image.Image, changed: Callable[[Image.Image], Image.Image]) -> None:
    assert groups(tmp_path, ("png", photo), ("png", changed(photo))) == []


def test_a_scan_of_16_bits_and_its_copy_of_8(tmp_path: Path) -> None:
    one, other = pictures("scans", count=2)
    copy = Image.fromarray((np.asarray(one) // 257).astype(np.uint8))
    assert groups(tmp_path, ("tif", one), ("png", other), ("jpg", copy)) == [[0, 2]]


def test_letters_are_different_pictures(tmp_path: Path) -> None:
    font = ImageFont.load_default(100)
    drawn = []
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        drawn.append(Image.new("RGB", (400, 400), "white"))
        ImageDraw.Draw(drawn[-1]).text((200, 200), letter, fill="navy", font=font, anchor="mm")
    saved = [("png", image) for image in drawn]
    assert groups(tmp_path, *saved, ("jpg", drawn[16].resize((300, 300)))) == [[16, 26]]
    facts = [find_facts(tmp_path / f"{number}.{'png' if number < 26 else 'jpg'}") for number in range(27)]
    assert len(validation_indices(facts, 10, 42)) == 3


def test_a_small_thing_in_another_place(tmp_path: Path) -> None:
    images = []
    for x in (100, 300):
        images.append(Image.new("RGB", (512, 512), "white"))
        ImageDraw.Draw(images[-1]).ellipse((x, 240, x + 24, 264), fill="black")
    assert groups(tmp_path, *(("png", image) for image in images)) == []


def test_textures_that_differ_only_close_by(tmp_path: Path) -> None:
    """At the size of a thumbnail, they are all the same grey."""
    grain = [np.random.default_rng(seed).normal(128, 10, (512, 512)).clip(0, 255).astype(np.uint8) for seed in (0, 1)]
    one, other = (Image.fromarray(values) for values in grain)
    assert groups(tmp_path, ("png", one), ("png", other), ("tif", one.convert("RGB"))) == [[0, 2]]


def facts(number: int) -> ImageFacts:
    small = random.Random(number).randbytes(SMALL_SIDE**2 + 2 * COLOUR_SIDE**2)
    return ImageFacts(100, 80, str(number), small=base64.b64encode(small).decode())


def test_many_images_are_compared_with_all_others() -> None:
    images = [facts(number) for number in range(1200)]
    assert near_duplicates([*images, replace(images[10], content="copy")]) == [[10, 1200]]
    assert near_duplicates([]) == []
    assert near_duplicates([ImageFacts(0, 0, "", error="broken"), facts(1)]) == []


def test_thousands_that_look_alike_take_seconds() -> None:
    """Frames of a video, each a little different from the one before."""
    random_numbers = np.random.default_rng(0)
    start = random_numbers.integers(60, 200, SMALL_SIDE**2).astype(np.float32)
    colour = bytes([128]) * (2 * COLOUR_SIDE**2)
    images = []
    for number in range(3000):
        noise = random_numbers.normal(0, 1, start.shape)
        small = (start + noise).clip(0, 255).astype(np.uint8).tobytes() + colour
        images.append(ImageFacts(100, 80, str(number), small=base64.b64encode(small).decode()))
    began = time.perf_counter()
    assert near_duplicates(images) == [list(range(3000))]
    assert time.perf_counter() - began < 10
