"""How large an error is usual at its noise, lately.

How large an error is depends on how much noise the image had, far more than on the image. So errors compare only after
each was divided by what is usual at its noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..events.step import RowResult

BINS = 20
"""Equal parts of the noise schedule. Within one of 10, errors of a noise-predicting model still differ threefold."""

HORIZON = 50
"""Errors that the usual one of a bin is the mean of: it has to fall as the model learns."""

SMALLEST_ERROR = 1e-12


class ErrorBaseline:
    """The mean logarithm of the latest errors in each bin of the noise schedule."""

    def __init__(self) -> None:
        self._bins: list[tuple[float, int]] = [(0.0, 0)] * BINS

    def add(self, row: RowResult) -> float | None:
        """The logarithm of how many times the usual an error is, which then is one of the others; None for the first
        of a bin, and for one that is no number."""
        if not math.isfinite(row.error):
            return None
        error = math.log(max(row.error, SMALLEST_ERROR))
        number = min(int(row.timestep * BINS), BINS - 1)
        mean, count = self._bins[number]
        own = error - mean if count else None
        count = min(count + 1, HORIZON)
        self._bins[number] = (mean + (error - mean) / count, count)
        return own

    def state(self) -> list[tuple[float, int]]:
        """What `restore` needs, in plain values."""
        return list(self._bins)

    def restore(self, state: Sequence[tuple[float, int]]) -> None:
        self._bins = list(state)
