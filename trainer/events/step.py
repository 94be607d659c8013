"""What is known of an optimizer step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

RANGES = ("0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00")
"""Quarters of the noise schedule; 0 is no noise. A loss swings with its timestep, so errors compare within a range."""


@dataclass(frozen=True)
class RowResult:
    """An image in a step: its mean squared error without any weighting, and its noise as a share of the schedule."""

    name: str
    error: float
    timestep: float


@dataclass(frozen=True)
class Gradients:
    """What is known of a step before the weights change.

    Attributes:
        loss: what is to be minimised, the mean of `losses`.
        losses: of each of `rows`, the images that were shown, in the order of the batches.
        norm: of the gradients, before clipping.
    """

    loss: float
    losses: tuple[float, ...]
    rows: tuple[RowResult, ...]
    norm: float


@dataclass(frozen=True)
class StepReport:
    """What happened in an optimizer step.

    Attributes:
        step: counts from 1.
        loss: what was minimised.
        rows: the images that were shown, in the order of the batches.
        learning_rates: by part of the LoRA.
        gradient_norm: before clipping.
        seconds: that the step took.
        skipped: whether it left the weights as they were, because its numbers were far beyond the usual.
        memory_gb: most memory in use during the step, in GB of 10^9 bytes; see `PeakMeter`.
    """

    step: int
    loss: float
    rows: tuple[RowResult, ...]
    learning_rates: dict[str, float]
    gradient_norm: float
    seconds: float
    memory_gb: float
    skipped: bool = False

    @property
    def errors(self) -> dict[str, float]:
        """Mean error in each range of the noise schedule that occurred."""
        return errors_by_range(self.rows)


def errors_by_range(rows: Iterable[RowResult]) -> dict[str, float]:
    """Mean error in each range of the noise schedule that occurs."""
    found: dict[str, list[float]] = {}
    for row in rows:
        index = min(int(row.timestep * len(RANGES)), len(RANGES) - 1)
        found.setdefault(RANGES[index], []).append(row.error)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}
