"""Sizes that images of different aspects are trained at."""

from __future__ import annotations

import math
from functools import cache

SMALLEST = 384
"""Images with less than this squared in pixels are enlarged to it, at training resolutions from here on."""

LONGEST = 2
"""The longer side is at most this many times the resolution; what lies beyond is cropped off."""


def bucket_step(resolution: int) -> int:
    """Every side of a bucket is a multiple of this many pixels."""
    return 64 if resolution >= 256 else 16


@cache
def bucket_for(width: int, height: int, resolution: int) -> tuple[int, int]:
    """The size in pixels that an image is trained at.

    Sides are multiples of `bucket_step`, the area is at most resolution² and near it, the aspect near the
    image's. An image that is smaller than this is not enlarged, unless it is smaller than `SMALLEST`.

    Args:
        width, height: of the image, in pixels.

    Returns:
        Width and height.
    """
    step = bucket_step(resolution)
    smallest = SMALLEST if resolution >= SMALLEST else step
    enlarge = smallest / math.sqrt(width * height)
    if enlarge > 1:
        room_x, room_y = (math.ceil(round(side * enlarge / step, 6)) * step for side in (width, height))
    else:
        room_x, room_y = max(width, step), max(height, step)
    room_x, room_y = (min(room, LONGEST * resolution) for room in (room_x, room_y))
    aspect = width / height
    sizes = [
        (x, y) for x in range(step, room_x + 1, step) for y in range(step, room_y + 1, step) if x * y <= resolution**2
    ]
    return min(sizes, key=lambda size: _loss(size, aspect))


def _loss(size: tuple[int, int], aspect: float) -> float:
    """How much of an image a bucket gives up: what is cropped off, and the lines lost to a smaller area."""
    own = size[0] / size[1]
    return max(own / aspect, aspect / own) / math.sqrt(size[0] * size[1])
