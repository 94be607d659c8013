"""Images are trained at a size that keeps their aspect, within the resolution's area."""

from __future__ import annotations

import random

import pytest
from lora_crucible.data.buckets import SMALLEST, bucket_for, bucket_step


@pytest.mark.parametrize(
    ("width", "height", "resolution", "expected"),
    [
        (1024, 1024, 512, (512, 512)),
        (512, 512, 512, (512, 512)),
        (3000, 2000, 1024, (1216, 832)),  # as SDXL was trained
        (1920, 1080, 512, (640, 384)),
        (500, 500, 512, (448, 448)),  # smaller than the resolution: not enlarged
        (300, 300, 512, (384, 384)),  # far smaller: enlarged, but not to the resolution
        (64, 64, 64, (64, 64)),
        (64, 48, 64, (64, 48)),
        (1, 1, 64, (16, 16)),
        (10, 2000, 512, (64, 1024)),  # the longer side is limited
        (2000, 2000, 1000, (960, 960)),  # a resolution between two steps
    ],
)
def test_bucket(width: int, height: int, resolution: int, expected: tuple[int, int]) -> None:
    assert bucket_for(width, height, resolution) == expected
    assert bucket_for(height, width, resolution) == expected[::-1]


def test_every_bucket_keeps_the_rules() -> None:
    sizes = random.Random(0)
    for _ in range(2000):
        width, height = sizes.randint(1, 5000), sizes.randint(1, 5000)
        resolution = sizes.choice([64, 128, 256, 512, 768, 1024, 1000])
        x, y = bucket_for(width, height, resolution)
        step = bucket_step(resolution)
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
            x, y = bucket_for(width, height, resolution)
            scale = max(x / width, y / height)
            assert x * y / (width * height * scale**2) > 0.9, "more than a tenth is cropped off"
            assert x * y > 0.8 * resolution**2
