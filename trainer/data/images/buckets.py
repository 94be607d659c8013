"""Sizes that images of different aspects are trained at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ...config.data_settings import DataSettings

SMALLEST = 384
"""Images with less than this squared in pixels are enlarged to it, at training resolutions from here on."""

LONGEST = 2
"""The longer side is at most this many times the resolution; what lies beyond is cropped off."""


@dataclass(frozen=True)
class Buckets:
    """The sizes of one training resolution.

    Sides are multiples of `step`, the area is at most resolution² and near it, the aspect near the image's.

    Attributes:
        step: in pixels; at most 16 for resolutions below 256.
        aspect_ratios: off, every image is trained as a square.
        allow_upscaling: off, an image that is smaller than the resolution is not enlarged, unless it is smaller
            than `SMALLEST`.
    """

    resolution: int
    step: int = 64
    aspect_ratios: bool = True
    allow_upscaling: bool = False

    @classmethod
    def of(cls, settings: DataSettings, resolution: int) -> Buckets:
        return cls(resolution, settings.bucket_step, settings.aspect_ratio_buckets, settings.allow_upscaling)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels that an image of this width and height is trained at."""
        if not self.aspect_ratios:
            width = height = min(width, height)
        return _size(self, width, height)

    def enlarges(self, width: int, height: int) -> bool:
        """Whether an image is scaled up to its size."""
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
        """For each width, the heights on either side of the image's aspect: no other can be better."""
        for x in range(step, room_x + 1, step):
            highest = min(room_y, resolution**2 // x) // step * step
            below = math.floor(x / aspect / step) * step
            for y in (below, below + step):
                if highest >= step:
                    yield x, min(max(y, step), highest)

    return min(candidates(), key=lambda size: _loss(size, aspect))


def _loss(size: tuple[int, int], aspect: float) -> float:
    """How much of an image a bucket gives up: what is cropped off, and the lines lost to a smaller area."""
    own = size[0] / size[1]
    return max(own / aspect, aspect / own) / math.sqrt(size[0] * size[1])
