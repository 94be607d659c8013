"""The error on fixed images with fixed noise, so that two rounds differ by what was learned between them alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch

from ..models.base import CachedExample, RowLosses
from ..seeding import derived_seed

TIMESTEPS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares of the noise schedule at which every image is measured: early ones show detail, late ones composition."""

MOST_IMAGES = 16
"""Images that are measured on each side; with fixed noise more would cost time and change little."""

Losses = Callable[[Sequence[CachedExample], Sequence[int], Sequence[float]], RowLosses]
"""A base model's `losses`."""


@dataclass(frozen=True)
class Round:
    """Mean squared errors after `step` steps.

    Attributes:
        trained: the sum of the learning rates of all steps so far; 0 before the first.
        training: on training images.
        held_out: on as many that are not trained; None where none are kept for that.
        by_timestep: the same at each of `TIMESTEPS`, of `held_out` or else of `training`.
    """

    step: int
    trained: float
    training: float
    held_out: float | None = None
    by_timestep: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        """What tells rounds apart: on the validation images, or else on the training images."""
        return self.training if self.held_out is None else self.held_out


class Validation:
    """
    Args:
        losses: of the base model, with the adapters as they are.
        held_out, training: samples of one view and one caption each, without dropout. The first may be none.
        batch_size: rows of a forward pass.
        seed: of the noise.

    Attributes:
        seconds: that all rounds took.
    """

    def __init__(
        self,
        losses: Losses,
        held_out: Sequence[CachedExample],
        training: Sequence[CachedExample],
        batch_size: int,
        seed: int,
    ) -> None:
        self._losses = losses
        self._held_out, self._training = held_out, training
        self._batch_size = batch_size
        self._seed = seed
        self.seconds = 0.0

    def make_smaller(self) -> bool:
        """Compute half as many rows at a time; False at one."""
        smaller = self._batch_size > 1
        self._batch_size = -(-self._batch_size // 2)
        return smaller

    def measure(self, step: int, trained: float) -> Round:
        """One round. The adapters' dropout must be off."""
        started = time.monotonic()
        training = self._errors(self._training)
        held_out = self._errors(self._held_out) if self._held_out else None
        self.seconds += time.monotonic() - started
        mean = None if held_out is None else statistics.fmean(held_out)
        return Round(step, trained, statistics.fmean(training), mean, held_out or training)

    @torch.no_grad()
    def _errors(self, samples: Sequence[CachedExample]) -> tuple[float, ...]:
        """The mean error at each timestep."""
        groups: dict[Hashable, list[tuple[int, int]]] = {}
        for index, sample in enumerate(samples):
            groups.setdefault(sample.group, []).extend((index, number) for number in range(len(TIMESTEPS)))
        errors: list[torch.Tensor] = []
        places: list[int] = []
        for rows in groups.values():
            for start in range(0, len(rows), self._batch_size):
                batch = rows[start : start + self._batch_size]
                seeds = [derived_seed(self._seed, "validation", index, number) for index, number in batch]
                timesteps = [TIMESTEPS[number] for _, number in batch]
                errors.append(self._losses([samples[index] for index, _ in batch], seeds, timesteps).errors)
                places += [number for _, number in batch]
        sums = torch.zeros(len(TIMESTEPS), dtype=torch.float64)
        sums.index_add_(0, torch.tensor(places), torch.cat(errors).double().cpu())
        return tuple((sums / len(samples)).tolist())
