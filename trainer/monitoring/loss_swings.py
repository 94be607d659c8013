"""Whether the error of a run swung.

The loss of a single step says little: it depends on the noise that its images happened to get. So errors are compared
within ranges of the noise schedule, as means over blocks of many steps, and with the chance that is left in these.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .error_baseline import SMALLEST_ERROR

BLOCKS = 10
"""Parts of a run, whose mean errors are compared."""

LEAST_STEPS = 80
"""Of a run whose blocks say something."""

CHANCE = 5.0
"""Standard errors that the mean of a block must rise by to be no chance."""

RISE = 0.2
"""And by which share."""


@dataclass(frozen=True)
class Swing:
    """The largest rise of the error between two blocks of steps: after step `low` it rose until step `high`, by
    `rise` as a share."""

    low: int
    high: int
    rise: float

    def text(self) -> str:
        return (
            f"The error swung: from step {self.low} to {self.high} it rose by {self.rise:.0%}, more than the chance of "
            "noise explains."
        )


def find_swing(steps: Sequence[Mapping[str, float]]) -> Swing | None:
    """
    Args:
        steps: of each, the mean error in each range of the noise schedule that occurred.
    """
    if len(steps) < LEAST_STEPS:
        return None
    values = _beside_their_range(steps)
    size = len(values) // BLOCKS
    blocks = [values[number * size : (number + 1) * size] for number in range(BLOCKS)]
    means = [statistics.fmean(block) for block in blocks]
    # From neighbours (von Neumann 1941), so that the fall within a block is no part of it.
    squares = [(one - two) ** 2 / 2 for block in blocks for one, two in pairwise(block)]
    error_of_rise = math.sqrt(2 * statistics.fmean(squares) / size)
    rise, high = max((means[number] - min(means[:number]), number) for number in range(1, BLOCKS))
    if rise < max(CHANCE * error_of_rise, math.log(1 + RISE)):
        return None
    lowest = min(means[:high])
    low = max(number for number in range(high) if means[number] <= lowest + 2 * error_of_rise)
    return Swing((low + 1) * size, (high + 1) * size, math.exp(rise) - 1)


def _beside_their_range(steps: Sequence[Mapping[str, float]]) -> list[float]:
    """The mean logarithm of the errors of each step, each as a multiple of what is usual in its range."""
    logarithms = [{name: math.log(max(error, SMALLEST_ERROR)) for name, error in step.items()} for step in steps]
    usual: dict[str, list[float]] = {}
    for step in logarithms:
        for name, value in step.items():
            usual.setdefault(name, []).append(value)
    means = {name: statistics.fmean(values) for name, values in usual.items()}
    return [statistics.fmean(value - means[name] for name, value in step.items()) for step in logarithms]
