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

SAMPLES = 54
"""How many numbers of a small version are compared first."""

ALIKE_ON_AVERAGE, ALIKE_ANYWHERE = 4, 32
"""The most by which small versions of near-duplicates differ, on average and anywhere, out of 255."""


def near_duplicates(facts: Sequence[ImageFacts]) -> list[list[int]]:
    """Group images that are the same except for size, format or quality.

    Hashes only say which images may be alike; small versions of their pixels decide. The hash of an image without
    detail says nothing, and a crop with another aspect ratio or a version in other colours is a different image.

    Returns:
        Groups of two or more indices, in ascending order. No index is in more than one group.
    """
    groups: list[list[int]] = []
    by_content: dict[str, list[int]] = {}
    firsts = _Firsts(facts)
    for index, one in enumerate(facts):
        group = by_content.get(one.content)
        if group is None:
            found = firsts.alike(index)
            group = [] if found is None else groups[found]
            by_content[one.content] = group
            if found is None:
                firsts.add(index)
                groups.append(group)
        group.append(index)
    return [group for group in groups if len(group) > 1]


class _Firsts:
    """The first image of each group, compared with further images all at once."""

    def __init__(self, facts: Sequence[ImageFacts]) -> None:
        count = len(facts)
        self._looks = np.array([one.look for one in facts], dtype=np.uint64)
        colours = [list(one.colour.to_bytes(3, "big")) for one in facts]
        self._colours = np.array(colours, dtype=np.int16).reshape(count, 3)
        self._shapes = np.array([one.width / max(1, one.height) for one in facts], dtype=np.float64)
        self._plain = np.array([one.sharpness <= 0 for one in facts], dtype=bool)
        self._small = [np.frombuffer(one.pixels(), dtype=np.uint8) for one in facts]
        # A few of these numbers tell most images apart, thousands at once.
        self._samples = np.zeros((count, SAMPLES), dtype=np.int16)
        for index, small in enumerate(self._small):
            if len(small):
                self._samples[index] = small[:: len(small) // SAMPLES][:SAMPLES]
        self._firsts = np.zeros(count, dtype=np.int64)
        self._count = 0

    def add(self, index: int) -> None:
        self._firsts[self._count] = index
        self._count += 1

    def alike(self, index: int) -> int | None:
        """Return the number of the first image that is alike, or None."""
        if self._plain[index]:
            return None
        firsts = self._firsts[: self._count]
        near = _bits(self._looks[firsts] ^ self._looks[index]) <= NEAR
        near &= np.abs(self._colours[firsts] - self._colours[index]).max(axis=1, initial=0) <= NEAR_COLOUR
        ratios = self._shapes[firsts] / max(self._shapes[index], 1e-9)
        near &= (ratios > 0.9) & (ratios < 1.1) & ~self._plain[firsts]
        numbers = np.flatnonzero(near)
        apart = np.abs(self._samples[firsts[numbers]] - self._samples[index]).max(axis=1, initial=0)
        for number in numbers[apart <= ALIKE_ANYWHERE]:
            if _same_pixels(self._small[firsts[number]], self._small[index]):
                return int(number)
        return None


def _same_pixels(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    difference = np.abs(one.astype(np.int16) - other)
    return not len(difference) or (difference.mean() <= ALIKE_ON_AVERAGE and difference.max() <= ALIKE_ANYWHERE)


def _bits(values: NDArray[np.uint64]) -> NDArray[np.uint8]:
    bytes_ = values.reshape(*values.shape, 1).view(np.uint8)
    return np.unpackbits(bytes_, axis=-1).sum(axis=-1, dtype=np.uint8)


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
