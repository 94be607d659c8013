"""A few of many, evenly from first to last."""

from __future__ import annotations

import pytest
from lora_crucible.data.spread import spread


@pytest.mark.parametrize(
    ("count", "found"), [(0, []), (1, [0]), (2, [0, 5]), (4, [0, 2, 5, 7]), (10, [*range(10)]), (99, [*range(10)])]
)
def test_items_are_taken_evenly_and_in_their_order(count: int, found: list[int]) -> None:
    assert spread(range(10), count) == found
