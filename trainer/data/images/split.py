"""Finding near-duplicate images, and choosing the images to hold out for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .image_facts import ImageFacts

NEAR = 4
"""The most bits, out of 64, in which the difference hashes of near-duplicates differ."""

NEAR_COLOUR = 16
"""The most by which the mean colours of near-duplicates differ in each channel, out of 255."""

ROWS_AT_A_TIME = 256


def near_duplicates(facts: Sequence[ImageFacts]) -> list[list[int]]:
    """Group images that are the same except for size, format or small changes.

    Returns:
        Groups of two or more indices, in ascending order. No index is in more than one group.
    """
    count = len(facts)
    hashes = np.array([one.look for one in facts], dtype=np.uint64)
    leader = list(range(count))

    def root(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for start in range(0, count, ROWS_AT_A_TIME):
        different = _bits(hashes[start : start + ROWS_AT_A_TIME, None] ^ hashes[None, :])
        for row, column in np.argwhere(different <= NEAR):
            if start + row < column and _comparable(facts[start + row], facts[column]):
                leader[root(int(column))] = root(int(start + row))
    groups: dict[int, list[int]] = {}
    for index in range(count):
        groups.setdefault(root(index), []).append(index)
    return [members for members in groups.values() if len(members) > 1]


def _bits(values: NDArray[np.uint64]) -> NDArray[np.uint8]:
    bytes_ = values.reshape(*values.shape, 1).view(np.uint8)
    return np.unpackbits(bytes_, axis=-1).sum(axis=-1, dtype=np.uint8)


def _comparable(one: ImageFacts, other: ImageFacts) -> bool:
    """Return whether two images with similar hashes may count as near-duplicates.

    A crop with another aspect ratio, or a version in other colours, is a different training image. The hash of an image
    without detail means nothing.
    """
    if one.content == other.content:
        return True
    ratio = (one.width * other.height) / max(1, one.height * other.width)
    colours = zip(one.colour.to_bytes(3, "big"), other.colour.to_bytes(3, "big"), strict=True)
    near = max(abs(a - b) for a, b in colours) <= NEAR_COLOUR
    return near and 0.9 < ratio < 1.1 and min(one.sharpness, other.sharpness) > 0


def validation_indices(facts: Sequence[ImageFacts], percent: float, seed: int) -> set[int]:
    """Choose the indices of images to hold out for validation: about `percent` of them, but never all.

    The choice depends on their content and the seed, not on their names and order. Near-duplicates of other images are
    never chosen, because the model would know them from training.
    """
    wanted = round(len(facts) * percent / 100)
    if percent > 0:
        wanted = max(1, wanted)
    alike = {index for group in near_duplicates(facts) for index in group}
    free = [index for index in range(len(facts)) if index not in alike]
    free.sort(key=lambda index: hashlib.sha256(f"{seed}|{facts[index].content}".encode()).digest())
    return set(free[: min(wanted, len(facts) - 1)])
