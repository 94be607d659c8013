"""When training is ended."""

from __future__ import annotations

import math

import pytest
from lora_crucible.evaluation.early_stopping import EarlyStopping


def stopped_at(errors: list[float], patience: int = 3, threshold: float = 0.001) -> int | None:
    """The round, counted from 0, that asks for a stop."""
    stopping = EarlyStopping(patience, threshold)
    return next((number for number, error in enumerate(errors) if stopping.add(error)), None)


@pytest.mark.parametrize(
    ("errors", "stop"),
    [
        ([1.0, 0.9, 0.8, 0.7, 0.6], None),
        ([1.0, 0.9, 0.91, 0.92, 0.93, 0.8], 4),  # three rounds that are no better
        ([1.0, 0.9, 0.95, 0.95, 0.89, 0.95, 0.95, 0.95], 7),  # an improvement starts the count anew
        ([1.0, 0.9995, 0.9993, 0.9991], 3),  # too little to count
        ([1.0, 0.9996, 0.9992, 0.9985, 0.998], None),  # little by little it does
        ([1.0, 1.1, 1.2, 1.3], 3),
        ([1.0, math.nan, math.nan, math.nan], 3),
    ],
)
def test_it_stops_after_three_rounds_without_a_thousandth_of_improvement(errors: list[float], stop: int | None):
    assert stopped_at(errors) == stop


def test_patience_zero_never_stops():
    assert stopped_at([1.0] * 100, patience=0) is None


def test_a_larger_threshold_asks_for_more():
    assert stopped_at([1.0, 0.95, 0.91, 0.87], threshold=0.2) == 3
    assert stopped_at([1.0, 0.95, 0.91, 0.79], threshold=0.2) is None
