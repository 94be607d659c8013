"""What the log says of a step."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.step_report import RowResult, errors_by_range, memory_gb


def test_errors_are_averaged_in_the_quarters_that_occur():
    rows = [RowResult("a.png", *figures) for figures in ((1.0, 0.0), (3.0, 0.2), (0.5, 0.5), (0.25, 1.0))]
    errors = errors_by_range(rows)
    assert errors == {"0.00-0.25": 2.0, "0.50-0.75": 0.5, "0.75-1.00": 0.25}


def test_memory_of_the_process_is_counted_without_a_gpu():
    before = memory_gb(torch.device("cpu"))
    kept = torch.ones(50_000_000)  # 0.2 GB
    assert memory_gb(torch.device("cpu")) - before == pytest.approx(0.2, abs=0.1)
    del kept
