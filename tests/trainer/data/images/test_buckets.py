"""Images are trained at sizes that keep their aspect ratio, within the area of the resolution."""

from __future__ import annotations

import random

import pytest
from lora_crucible.data.images.buckets import SMALLEST, Buckets


@pytest.mark.parametrize(
    ("width", "height", "resolution", "expected"),
    [
        (1024, 1024, 512, (512, 512)),
        (512, 512, 512, (512, 512)),
        (3000, 2000, 1024, (1216, 832)),  # as SDXL was trained
        (1920, 1080, 512, (640, 384)),
        (500, 500, 512, (448, 448)),  # smaller than the resolution: not upscaled
        (300, 300, 512, (384, 384)),  # much smaller: upscaled, but not to the resolution
        (64, 64, 64, (64, 64)),
        (64, 48, 64, (64, 48)),
        (1, 1, 64, (16, 16)),
        (10, 2000, 512, (64, 1024)),  # the longer side is limited
        (2000, 2000, 1000, (960, 960)),  # a resolution between two steps
    ],
)
def test_bucket(width: int, height: int, resolution: int, expected: tuple[int, int]) -> None:
    assert Buckets(resolution).size(width, height) == expected
    assert Buckets(resolution).size(height, width) == expected[::-1]


def test_every_bucket_keeps_the_rules() -> None:
    sizes = random.Random(0)
    for _ in range(2000):
        width, height = sizes.randint(1, 5000), sizes.randint(1, 5000)
        resolution = sizes.choice([64, 128, 256, 512, 768, 1024, 1000])
        x, y = Buckets(resolution).size(width, height)
        step = 64 if resolution >= 256 else 16
        assert x % step == y % step == 0
        assert min(x, y) >= step
        assert x * y <= resolution**2
        assert max(x, y) <= 2 * resolution
        if min(width, height) >= step and width * height >= SMALLEST**2:
            assert x <= width
            assert y <= height


def test_ordinary_photos_lose_little() -> None:
    for resolution in (512, 1024):
        for width, height in [(4000, 3000), (3000, 2000), (1920, 1080), (1600, 1600), (2000, 1600)]:
            x, y = Buckets(resolution).size(width, height)
            scale = max(x / width, y / height)
            assert x * y / (width * height * scale**2) > 0.9, "more than a tenth is cropped off"
            assert x * y > 0.8 * resolution**2


def test_a_smaller_step_crops_less() -> None:
    assert Buckets(512, step=8).size(1920, 1080) == (680, 384)
    width, height = Buckets(512, step=8).size(1000, 1000)
    assert width % 8 == height % 8 == 0


def test_without_buckets_every_image_is_a_square() -> None:
    assert Buckets(512, aspect_ratios=False).size(1920, 1080) == (512, 512)
    assert Buckets(512, aspect_ratios=False).size(400, 2000) == (384, 384)


def test_small_images_are_enlarged_only_when_allowed() -> None:
    assert Buckets(1024).size(600, 600) == (576, 576)
    assert not Buckets(1024).enlarges(600, 600)
    assert Buckets(1024, allow_upscaling=True).size(600, 600) == (1024, 1024)
    assert Buckets(1024, allow_upscaling=True).enlarges(600, 600)
    assert Buckets(512).enlarges(300, 300)
