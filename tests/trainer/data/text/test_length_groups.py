"""Examples of similar length share a batch, and groups are large enough to fill one."""

from __future__ import annotations

import random

import pytest
from lora_crucible.data.text.length_groups import LEAST, group_bounds, group_of, padding_share


@pytest.mark.parametrize("seed", range(3))
def test_little_of_a_batch_is_padding(seed: int) -> None:
    draw = random.Random(seed)
    lengths = [int(draw.lognormvariate(5, 0.8)) + 4 for _ in range(3000)]
    bounds = group_bounds(lengths)
    assert padding_share(lengths, bounds) < 0.15
    assert max(lengths) == bounds[-1]


def test_few_rows_are_in_few_groups() -> None:
    lengths = [20 + 6 * number for number in range(60)]
    bounds = group_bounds(lengths)
    members = [sum(group_of(length, bounds) == bound for length in lengths) for bound in bounds]
    assert sum(members) == 60
    assert min(members) >= LEAST
    assert len(bounds) == 3


def test_edges() -> None:
    assert group_bounds([]) == ()
    assert group_bounds([7]) == (7,)
    assert group_bounds([7] * 100) == (7,)
    assert group_of(9, (7,)) == 9
    assert padding_share([], ()) == 0
