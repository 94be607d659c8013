"""Every image is shown once per pass, in batches that fit together, in an order that only the seed decides."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement
from random import Random

import pytest
from lora_crucible.data.batch_sampler import BatchSampler, shares

GROUPS = ["wide"] * 7 + ["tall"] * 4 + ["square"]


def epoch(order: BatchSampler, number: int) -> list[list[int]]:
    first = number * order.steps_per_epoch
    return [batch for step in range(first, first + order.steps_per_epoch) for batch in order.step(step)]


def test_a_pass_shows_every_sample_once():
    for number in (0, 1, 5):
        shown = [index for batch in epoch(BatchSampler(GROUPS, 3, 2, seed=1), number) for index in batch]
        assert sorted(shown) == list(range(len(GROUPS)))


def test_a_batch_never_mixes_groups():
    for batch in epoch(BatchSampler(GROUPS, 3, 1, seed=1), 0):
        assert len({GROUPS[index] for index in batch}) == 1
        assert len(batch) <= 3


def test_steps_have_as_many_batches_as_are_accumulated():
    order = BatchSampler(GROUPS, 3, 2, seed=1)
    assert order.batches_per_epoch == 3 + 2 + 1
    assert order.steps_per_epoch == 3
    assert [len(order.step(step)) for step in range(3)] == [2, 2, 2]


def test_order_depends_on_seed_and_pass_alone():
    one, same, other = (BatchSampler(GROUPS, 3, 1, seed) for seed in (1, 1, 2))
    same.step(17)  # what was asked before does not matter
    assert epoch(one, 2) == epoch(same, 2)
    assert epoch(one, 2) != epoch(one, 1)
    assert epoch(one, 2) != epoch(other, 2)


def rows_of(batches: list[list[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


def cuts(rows: int, count: int) -> Iterator[list[range]]:
    """Every way to cut so many rows into parts that follow each other."""
    for ends in combinations_with_replacement(range(rows + 1), count - 1):
        yield [range(first, end) for first, end in zip((0, *ends), (*ends, rows), strict=True)]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_shares_have_every_row_once_and_the_largest_is_as_small_as_it_can_be(count):
    random = Random(count)
    for _ in range(50):
        numbers = [random.randint(1, 3) for _ in range(random.randint(1, 4))]
        batches, sizes = [], []
        for rows in numbers:
            batches.append(list(range(len(sizes), len(sizes) + rows)))
            sizes += [random.choice([1, 4, 100, 1000])] * rows
        found = shares(batches, sizes, count)
        assert rows_of([rows_of(share.batches) for share in found]) == rows_of(batches)
        assert [share.first for share in found] == [
            sum(len(rows_of(before.batches)) for before in found[:number]) for number in range(count)
        ]
        for share in found:
            assert all(any(set(part) <= set(batch) for batch in batches) for part in share.batches)
        largest = max(sum(sizes[row] for row in rows_of(share.batches)) for share in found)
        best = min(max(sum(sizes[row] for row in part) for part in cut) for cut in cuts(len(sizes), count))
        assert largest == best
        assert sum(1 for share in found if share.batches) == min(count, len(sizes))


def test_whole_batches_stay_together_where_that_is_as_good():
    batches = [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [share.batches for share in shares(batches, [1] * 8, 2)] == [[batches[0]], [batches[1]]]
