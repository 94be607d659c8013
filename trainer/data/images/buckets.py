"""The sizes at which images of different aspect ratios are trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ...config.data_settings import DataSettings

SMALLEST = 384
"""At this training resolution and above, images with fewer than this many pixels squared are upscaled to it."""

LONGEST = 2
"""The longer side is at most this many times the resolution; anything beyond that is cropped off."""


@dataclass(frozen=True)
class Buckets:
    """The bucket sizes of one training resolution.

    Both sides are multiples of `step`, the area is close to resolution² but not above it, and the aspect ratio is close
    to the image's.

    Attributes:
        resolution: the side length in pixels of a square image.
        step: the number of pixels that both sides are multiples of; at most 16 is used for resolutions below 256.
        aspect_ratios: whether images keep their aspect ratio; otherwise each is trained as a square.
        allow_upscaling: whether images smaller than the resolution are upscaled to it; otherwise only images smaller
            than `SMALLEST` are upscaled, to that size.
    """

    resolution: int
    step: int = 64
    aspect_ratios: bool = True
    allow_upscaling: bool = False

    @classmethod
    def of(cls, settings: DataSettings, resolution: int) -> Buckets:
        """Create the buckets of a resolution from the settings of a dataset."""
        return cls(resolution, settings.bucket_step, settings.aspect_ratio_buckets, settings.allow_upscaling)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height in pixels at which an image of the given width and height is trained."""
        if not self.aspect_ratios:
            width = height = min(width, height)
        return _size(self, width, height)

    def enlarges(self, width: int, height: int) -> bool:
        """Return whether an image of the given width and height is upscaled for training."""
        to_width, to_height = self.size(width, height)
        return to_width > width or to_height > height


@lru_cache(maxsize=100_000)
def _size(buckets: Buckets, width: int, height: int) -> tuple[int, int]:
    resolution = buckets.resolution
    step = buckets.step if resolution >= 256 else min(16, buckets.step)
    smallest = SMALLEST if resolution >= SMALLEST else step
    if buckets.allow_upscaling:
        smallest = resolution
    enlarge = smallest / math.sqrt(width * height)
    if enlarge > 1:
        room_x, room_y = (math.ceil(round(side * enlarge / step, 6)) * step for side in (width, height))
    else:
        room_x, room_y = max(width, step), max(height, step)
    room_x, room_y = (min(room, LONGEST * resolution) for room in (room_x, room_y))
    aspect = width / height

    def candidates() -> Iterator[tuple[int, int]]:
        """Yield each width with the heights on either side of the image's aspect ratio; no others can be better."""
        for x in range(step, room_x + 1, step):
            highest = min(room_y, resolution**2 // x) // step * step
            below = math.floor(x / aspect / step) * step
            for y in (below, below + step):
                if highest >= step:
                    yield x, min(max(y, step), highest)

    return min(candidates(), key=lambda size: _loss(size, aspect))


def _loss(size: tuple[int, int], aspect: float) -> float:
    """Return how much of an image is lost in a bucket, to cropping and to a smaller area."""
    own = size[0] / size[1]
    return max(own / aspect, aspect / own) / math.sqrt(size[0] * size[1])
