"""Finding images that are the same except for size, format or quality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .image_facts import ImageFacts
from .image_measures import COLOUR_SIDE, DETAIL_SIDE, SMALL_SIDE

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

MOST_APART, MOST_COLOURS_APART = 16, 10
"""The most by which the small versions of near-duplicates differ anywhere in brightness and in colour, out of 255."""

MOST_OF_CONTRAST, LEAST_NOISE = 0.2, 1.5
"""The most by which they differ on average (root mean square, without the mean difference): a share of their contrast
(standard deviation), or the noise of JPEG compression if that is more."""

MOST_IF_FAINT = 0.5
"""What the share above is for images of so little contrast that the noise is most of it."""

FLAT, FLAT_DETAIL, SAME_DETAIL = 1.0, 2.0, 0.65
"""Small versions of less contrast than the first show next to nothing. Then a part of the images decides: both have
less contrast than the second there, or a correlation of at least the third."""

SHAPES_APART = 0.1
"""The most by which the aspect ratios of near-duplicates differ, as a fraction."""

BLOCK = 512
"""The number of images that are compared with all others at a time."""

CELLS = 4
"""The number of pixels of a small version in a cell of the coarse version, along a side."""


def near_duplicates(facts: Sequence[ImageFacts]) -> list[list[int]]:
    """Group images that are the same except for size, format or quality.

    Small versions of their pixels decide. A crop, a mirror image, a version in other colours, or one that differs in
    any visible part is another image.

    Returns:
        Groups of two or more indices, in ascending order. No index is in more than one group.
    """
    leaders: list[int] = []
    by_content: dict[str, int] = {}
    by_pixels: dict[tuple[str, int, int], int] = {}
    for index, one in enumerate(facts):
        leader = by_content.setdefault(one.content, index)
        if one.small:
            leader = by_pixels.setdefault((one.small, one.width, one.height), leader)
        leaders.append(leader)
    firsts = [index for index in sorted(set(leaders)) if facts[index].small]
    group = np.array(leaders)
    for first, other in _alike([facts[index] for index in firsts]):
        group[group == group[firsts[other]]] = group[firsts[first]]
    groups: dict[int, list[int]] = {}
    for index, leader in enumerate(group.tolist()):
        groups.setdefault(leader, []).append(index)
    return [members for members in groups.values() if len(members) > 1]


class _Smalls:
    """The small versions of images, as matrices with a row for each image."""

    def __init__(self, facts: Sequence[ImageFacts]) -> None:
        grey, colour = SMALL_SIDE**2, 2 * COLOUR_SIDE**2
        smalls = [np.frombuffer(one.pixels(), dtype=np.uint8) for one in facts]
        self.grey = np.stack([small[:grey] for small in smalls])
        self.colour = np.stack([small[grey : grey + colour] for small in smalls])
        self.detail = [small[grey + colour :].astype(np.float32) for small in smalls]
        self.contrast = np.array([small[:grey].std() for small in smalls], dtype=np.float32)
        self.mean = np.array([small[:grey].mean() for small in smalls], dtype=np.float32)
        self.shape = np.array([one.width / max(1, one.height) for one in facts], dtype=np.float32)
        side = SMALL_SIDE // CELLS
        cells = self.grey.reshape(-1, side, CELLS, side, CELLS).mean(axis=(2, 4), dtype=np.float32)
        self.coarse = cells.reshape(len(facts), -1) - self.mean[:, None]


def _alike(facts: Sequence[ImageFacts]) -> Iterator[tuple[int, int]]:
    """Yield pairs of images that are alike, enough of them to connect all that are.

    Products of matrices leave out nearly all other pairs, so that thousands of images take seconds even if they look
    alike at first sight.
    """
    if len(facts) < 2:
        return
    smalls = _Smalls(facts)
    group = np.arange(len(facts))
    for start in range(0, len(facts), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(facts)))
        columns = np.arange(start, len(facts))
        if len(set(group[rows])) == 1:
            columns = columns[group[columns] != group[start]]
        near = _comparable(smalls, rows, columns)
        near &= _close(smalls.coarse[rows], smalls.coarse[columns], smalls, rows, columns)
        kept = near.any(axis=0)
        near, columns = near[:, kept], columns[kept]
        if len(columns) > BLOCK:  # many look alike: compare them in full, also by a product
            fine = [smalls.grey[part] - smalls.mean[part, None] for part in (rows, columns)]
            near &= _close(fine[0], fine[1], smalls, rows, columns)
        for row in np.flatnonzero(near.any(axis=1)):
            index = start + row
            others = columns[near[row]]
            others = others[group[others] != group[index]]
            for other in others[_same(smalls, index, others)]:
                if group[other] != group[index]:
                    group[group == group[other]] = group[index]
                    yield int(index), int(other)


def _comparable(smalls: _Smalls, rows: Indices, columns: Indices) -> NDArray[np.bool_]:
    """Return whether the brightness and the shape of images are near enough for them to be the same."""
    ratios = smalls.shape[rows, None] / np.maximum(smalls.shape[None, columns], 1e-9)
    means = np.abs(smalls.mean[rows, None] - smalls.mean[None, columns])
    return (np.abs(ratios - 1) < SHAPES_APART) & (means <= MOST_APART) & (rows[:, None] < columns)


def _close(one: Floats, other: Floats, smalls: _Smalls, rows: Indices, columns: Indices) -> NDArray[np.bool_]:
    """Return whether versions are close. Averages of pixels differ by no more than the pixels do."""
    return _distances(one, other) <= _limits(smalls, rows, columns)


def _distances(one: Floats, other: Floats) -> Floats:
    """Return the root mean square of the differences between each row of one and each row of the other."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2 * one @ other.T
    return np.asarray(np.sqrt(np.maximum(squares, 0) / np.float32(one.shape[1])), dtype=np.float32)


def _limits(smalls: _Smalls, rows: Indices, columns: Indices) -> Floats:
    contrast = np.minimum(smalls.contrast[rows, None], smalls.contrast[None, columns])
    limits = np.maximum(MOST_OF_CONTRAST * contrast, LEAST_NOISE) + 0.01  # for rounding
    return limits.astype(np.float32)


def _same(smalls: _Smalls, index: int, others: Indices) -> NDArray[np.bool_]:
    """Return which of some images have the same pixels as one."""
    same = np.zeros(len(others), dtype=bool)
    for place in range(0, len(others), BLOCK):
        part = others[place : place + BLOCK]
        grey = smalls.grey[part].astype(np.int16) - smalls.grey[index]
        colour = np.abs(smalls.colour[part].astype(np.int16) - smalls.colour[index]).max(axis=1)
        right = (np.abs(grey).max(axis=1) <= MOST_APART) & (colour <= MOST_COLOURS_APART)
        apart, contrast = grey.std(axis=1), np.minimum(smalls.contrast[index], smalls.contrast[part])
        right &= apart <= _limits(smalls, np.array([index]), part)[0]
        right &= (apart <= MOST_IF_FAINT * contrast) | (contrast < FLAT)
        same[place : place + BLOCK] = right
    for found in np.flatnonzero(same):
        if min(smalls.contrast[index], smalls.contrast[others[found]]) < FLAT:
            same[found] = _same_detail(smalls.detail[index], smalls.detail[others[found]])
    return same


def _same_detail(one: Floats, other: Floats) -> bool:
    if len(one) != DETAIL_SIDE**2 or len(other) != DETAIL_SIDE**2:
        return True
    if max(one.std(), other.std()) < FLAT_DETAIL:
        return True
    if min(one.std(), other.std()) == 0:
        return False
    return bool(np.corrcoef(one, other)[0, 1] >= SAME_DETAIL)
