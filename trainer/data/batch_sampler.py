"""The order in which examples are trained."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from ..seeding import generator


@dataclass(frozen=True)
class Share:
    """The rows of a step that one process computes: those that follow each other from `first` on.

    Attributes:
        first: the number of its first row among all rows of the step, from 0.
        batches: its batches, or parts of them, as lists of indices of examples.
    """

    first: int
    batches: list[list[int]]


class BatchSampler:
    """Yields the batches of each step, in random passes over all examples without repeats inside a pass.

    Args:
        groups: the group of each example; only examples of the same group, whose tensors have the same shapes, share a
            batch.
        batch_size: the number of examples per forward pass; the last batch of a group may be smaller.
        accumulation: the number of batches per optimizer step.
        seed: the seed of the run; the order of a pass depends only on it and on the number of the pass.

    Attributes:
        batches_per_epoch: the number of batches per pass.
        steps_per_epoch: the number of optimizer steps per pass.
    """

    def __init__(self, groups: Sequence[Hashable], batch_size: int, accumulation: int, seed: int) -> None:
        self._members: dict[Hashable, list[int]] = {}
        for index, group in enumerate(groups):
            self._members.setdefault(group, []).append(index)
        self._batch_size = batch_size
        self._accumulation = accumulation
        self._seed = seed
        batches = sum(-(-len(members) // batch_size) for members in self._members.values())
        self.batches_per_epoch = batches
        self.steps_per_epoch = -(-batches // accumulation)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def step(self, step: int) -> list[list[int]]:
        """Return the batches of a step, counted from 0, as lists of indices of examples."""
        epoch, position = divmod(step, self.steps_per_epoch)
        batches = self._epoch(epoch)
        return batches[position * self._accumulation : (position + 1) * self._accumulation]

    def _shuffled(self, epoch: int) -> list[list[int]]:
        draw = generator(self._seed, "order", epoch)
        batches = []
        for members in self._members.values():
            shuffled = [members[i] for i in torch.randperm(len(members), generator=draw).tolist()]
            batches += [shuffled[i : i + self._batch_size] for i in range(0, len(shuffled), self._batch_size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=draw).tolist()]


def shares(batches: Sequence[Sequence[int]], sizes: Sequence[int], count: int) -> list[Share]:
    """Split the rows of a step among processes, in their order, so that the largest share is as small as it can be.

    Batches stay together where that allows it. Every process gets a row if there are enough.

    Args:
        batches: the batches of a step, as lists of indices of examples.
        sizes: the cost of each example of the run.
        count: the number of processes.
    """
    costs = [sizes[index] for batch in batches for index in batch]
    low, high = max(costs), sum(costs)
    while low < high:  # the least limit with which the shares are enough for all rows
        limit = (low + high) // 2
        low, high = (low, limit) if _ends(costs, limit, count)[-1] == len(costs) else (limit + 1, high)
    ends = _ends(costs, low, count)
    return [_share(batches, first, end) for first, end in zip([0, *ends], ends, strict=False)]


def _ends(costs: Sequence[int], limit: int, count: int) -> list[int]:
    """Fill shares up to a limit, one after the other, and return the row after the last of each."""
    ends, row = [], 0
    for others in range(count - 1, -1, -1):
        total, first = 0, row
        # The others get a row each, if there are so many.
        while row < len(costs) and total + costs[row] <= limit and (row == first or len(costs) - row > others):
            total += costs[row]
            row += 1
        ends.append(row)
    return ends


def _share(batches: Sequence[Sequence[int]], first: int, end: int) -> Share:
    parts, row = [], 0
    for batch in batches:
        part = list(batch[max(0, first - row) : max(0, end - row)])
        parts += [part] if part else []
        row += len(batch)
    return Share(first, parts)
