"""A few of many, evenly from first to last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` of the items in their order, evenly from first to last."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
