"""Which samples a step trains on."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache

import torch

from ..seeding import generator


class BatchSampler:
    """Passes over all samples, without repeats inside a pass, in batches of samples that fit into one tensor.

    Args:
        groups: for each sample, what it must share with the others of its batch (the shapes of its tensors).
        batch_size: samples per forward pass. The last batch of a group may be smaller: none is left out.
        accumulation: batches per optimizer step.
        seed: the run's seed. The order of a pass depends on it and on the number of the pass alone.
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
        """The batches (lists of sample indices) of optimizer step `step`, counted from 0."""
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
