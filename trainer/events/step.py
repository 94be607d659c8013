"""The results of an optimizer step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

RANGES = ("0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00")
"""The quarters of the noise schedule, where 0 is no noise. A loss depends on its timestep, so errors are only
comparable within a range."""

WITHOUT_NOISE = "all"
"""The name that stands for the ranges where a model is not trained with noise."""


@dataclass(frozen=True)
class RowResult:
    """The result of one example in a step.

    Attributes:
        name: the name of the example.
        error: its error without any weighting.
        timestep: its noise level, as a share of the noise schedule from 0 to 1; None for a model that is not trained
            with noise.
    """

    name: str
    error: float
    timestep: float | None


@dataclass(frozen=True)
class Gradients:
    """The losses and the gradient norm of a step before the weights are updated.

    Attributes:
        loss: the loss of the step, the weighted mean of `losses`.
        losses: the loss of each row.
        rows: the results of the examples, in the order of the batches.
        norm: the norm of the gradients before clipping.
    """

    loss: float
    losses: tuple[float, ...]
    rows: tuple[RowResult, ...]
    norm: float


@dataclass(frozen=True)
class StepReport:
    """The report of an optimizer step.

    Attributes:
        step: the number of the step, counted from 1.
        loss: the loss of the step.
        rows: the results of the examples, in the order of the batches.
        learning_rates: the learning rates by parameter group.
        gradient_norm: the norm of the gradients before clipping.
        seconds: the duration of the step in seconds.
        memory_gb: the most memory in use during the step, in GB of 10^9 bytes; see `PeakMeter`.
        skipped: whether the weights were left unchanged, because the loss or the gradients were far above the usual.
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
        """The mean error in each range of the noise schedule that occurred, or of all rows if there is no noise."""
        return errors_by_range(self.rows)


def errors_by_range(rows: Iterable[RowResult]) -> dict[str, float]:
    """Return the mean error in each range of the noise schedule that occurs in `rows`.

    Rows without a noise level are in a range of their own, `WITHOUT_NOISE`.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        name = WITHOUT_NOISE
        if row.timestep is not None:
            name = RANGES[min(int(row.timestep * len(RANGES)), len(RANGES) - 1)]
        found.setdefault(name, []).append(row.error)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}
