"""The usual error at each noise level, over the latest steps.

The error of an image depends far more on its noise level than on the image. Errors can therefore only be compared after
each has been divided by the usual error at its noise level. Models that are not trained with noise have only one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..events.step import RowResult

BINS = 20
"""The number of equal parts of the noise schedule. With 10, errors in one part still differ threefold for models that
predict noise."""

HORIZON = 50
"""The number of latest errors that are averaged in each bin; the average has to fall as the model learns."""

SMALLEST_ERROR = 1e-12
"""The least error whose logarithm is taken."""

SMALLEST_NATS = 0.05
"""The same for models without noise, whose errors are in nats per token. Below it a model is nearly certain of each
token, and how many times smaller an error is means nothing."""


def logarithm(error: float, *, has_noise: bool) -> float:
    """Return the logarithm of an error, or of the least error that counts if it is smaller."""
    return math.log(max(error, SMALLEST_ERROR if has_noise else SMALLEST_NATS))


class ErrorBaseline:
    """The mean logarithm of the latest errors in each bin of the noise schedule."""

    def __init__(self) -> None:
        self._bins: list[tuple[float, int]] = [(0.0, 0)] * BINS

    def add(self, row: RowResult) -> float | None:
        """Return the logarithm of the ratio of an error to the usual one, and add the error to its bin.

        Returns:
            The logarithm; None for the first error in a bin, and for an error that is NaN or infinite.
        """
        if not math.isfinite(row.error):
            return None
        error = logarithm(row.error, has_noise=row.timestep is not None)
        number = 0 if row.timestep is None else min(int(row.timestep * BINS), BINS - 1)
        mean, count = self._bins[number]
        own = error - mean if count else None
        count = min(count + 1, HORIZON)
        self._bins[number] = (mean + (error - mean) / count, count)
        return own

    def state(self) -> list[tuple[float, int]]:
        """Return what `restore` needs, as plain values."""
        return list(self._bins)

    def restore(self, state: Sequence[tuple[float, int]]) -> None:
        """Continue from a `state`."""
        self._bins = list(state)
