"""Grouping examples by length, so that little of a batch is padding."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

RATIO = 1.25
"""The greatest length in a group by the greatest in the one below it, before small groups are merged. Lengths that are
spread evenly then waste a tenth of the tokens on padding."""

LEAST = 16
"""The fewest examples of a group; fewer would rarely fill a batch."""


def group_bounds(lengths: Sequence[int]) -> tuple[int, ...]:
    """Return the greatest length of each group, in ascending order.

    Groups grow geometrically. One that is smaller than `LEAST` is merged with the next longer one, the longest with the
    one below it.

    Args:
        lengths: the number of tokens of each example.
    """
    groups: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        if groups and length * RATIO > groups[-1][0]:
            groups[-1].append(length)
        else:
            groups.append([length])
    merged: list[list[int]] = []
    for group in reversed(groups):  # from short to long
        if merged and len(merged[-1]) < LEAST:
            merged[-1] = [*group, *merged[-1]]
        else:
            merged.append(group)
    if len(merged) > 1 and len(merged[-1]) < LEAST:
        longest = merged.pop()
        merged[-1] = [*longest, *merged[-1]]
    return tuple(group[0] for group in merged)


def group_of(length: int, bounds: Sequence[int]) -> int:
    """Return the bound of the group that a length belongs to; a length above all bounds is its own."""
    place = bisect_left(bounds, length)
    return bounds[place] if place < len(bounds) else length


def padding_share(lengths: Sequence[int], bounds: Sequence[int]) -> float:
    """Return the share of tokens that is padding if each example is padded to the bound of its group, from 0 to 1."""
    padded = sum(group_of(length, bounds) for length in lengths)
    return 1 - sum(lengths) / padded if padded else 0.0
