"""The entry of a step in the log."""

from __future__ import annotations

from lora_crucible.events.step import RowResult, errors_by_range


def test_errors_are_averaged_in_the_quarters_that_occur():
    rows = [RowResult("a.png", *figures) for figures in ((1.0, 0.0), (3.0, 0.2), (0.5, 0.5), (0.25, 1.0))]
    errors = errors_by_range(rows)
    assert errors == {"0.00-0.25": 2.0, "0.50-0.75": 0.5, "0.75-1.00": 0.25}


def test_without_noise_there_is_one_range():
    rows = [RowResult("a, row 1", 1.0, None), RowResult("a, row 2", 3.0, None)]
    assert errors_by_range(rows) == {"all": 2.0}
