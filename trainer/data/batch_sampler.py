"""The order in which examples are trained."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache

import torch

from ..seeding import generator


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
