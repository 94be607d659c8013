"""Every image is shown once per pass, in batches that fit together, in an order that only the seed decides."""

from __future__ import annotations

from lora_crucible.data.batch_sampler import BatchSampler

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
