"""What a run can do without never ends it."""

from __future__ import annotations

import pytest
from lora_crucible.runs.best_effort import BestEffort


def test_a_failure_is_named_once_and_kept_for_the_report(caplog):
    extras = BestEffort()
    for text in ("full", "still full"):
        with extras.writing("The log"):
            raise OSError(text)
    with extras.writing("The plot"):
        raise ValueError("no such colour")
    with extras.writing("The report"):
        pass
    assert extras.notes == [
        "The log could not be written, and the run continued without it. full",
        "The plot could not be written, and the run continued without it. no such colour",
    ]
    assert caplog.text.count("could not be written") == 2


def test_ctrl_c_is_no_failure():
    extras = BestEffort()
    with pytest.raises(KeyboardInterrupt), extras.writing("The log"):
        raise KeyboardInterrupt
    assert not extras.notes
