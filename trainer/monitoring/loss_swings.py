"""Detection of swings in the error of a run.

The loss of a single step says little, because it depends on the noise that was drawn. Errors are therefore compared
within ranges of the noise schedule, as means over blocks of many steps, and a rise has to exceed what chance explains.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..events.step import WITHOUT_NOISE
from .error_baseline import logarithm

BLOCKS = 10
"""The number of blocks of a run whose mean errors are compared."""

STEPS_TO_JUDGE = 80
"""The fewest steps of a run whose blocks are long enough to compare."""

CHANCE = 5.0
"""The least rise of a block's mean, in standard errors; a smaller one may be chance."""

RISE = 0.2
"""The least rise of the error that counts as a swing, as a share."""


@dataclass(frozen=True)
class Swing:
    """The largest rise of the error between two blocks of steps.

    Attributes:
        low: the last step of the block with the low error.
        high: the last step of the block with the high error.
        rise: the rise of the error, as a share.
    """

    low: int
    high: int
    rise: float

    def text(self) -> str:
        """Return a sentence about the swing."""
        return (
            f"The error swung: from step {self.low} to {self.high} it rose by {self.rise:.0%}, more than random noise "
            "explains."
        )


def find_swing(steps: Sequence[Mapping[str, float]]) -> Swing | None:
    """Find the largest swing of the error.

    Args:
        steps: for each step, the mean error by range of the noise schedule.

    Returns:
        The swing; None if the run is too short or there is none.
    """
    if len(steps) < STEPS_TO_JUDGE:
        return None
    values = _beside_their_range(steps)
    size = len(values) // BLOCKS
    blocks = [values[number * size : (number + 1) * size] for number in range(BLOCKS)]
    means = [statistics.fmean(block) for block in blocks]
    # From differences between neighbours (von Neumann 1941), which exclude the trend within a block.
    squares = [(one - two) ** 2 / 2 for block in blocks for one, two in pairwise(block)]
    error_of_rise = math.sqrt(2 * statistics.fmean(squares) / size)
    rise, high = max((means[number] - min(means[:number]), number) for number in range(1, BLOCKS))
    if rise < max(CHANCE * error_of_rise, math.log(1 + RISE)):
        return None
    lowest = min(means[:high])
    low = max(number for number in range(high) if means[number] <= lowest + 2 * error_of_rise)
    return Swing((low + 1) * size, (high + 1) * size, math.exp(rise) - 1)


def _beside_their_range(steps: Sequence[Mapping[str, float]]) -> list[float]:
    """Return the mean logarithm of the errors of each step, each relative to the mean of its range."""
    logarithms = [
        {name: logarithm(error, has_noise=name != WITHOUT_NOISE) for name, error in step.items()} for step in steps
    ]
    usual: dict[str, list[float]] = {}
    for step in logarithms:
        for name, value in step.items():
            usual.setdefault(name, []).append(value)
    means = {name: statistics.fmean(values) for name, values in usual.items()}
    return [statistics.fmean(value - means[name] for name, value in step.items()) for step in logarithms]
