"""Slow steps, detected in reports with times that the test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from lora_crucible.events.step import RowResult, StepReport
from lora_crucible.monitoring.step_time import ENOUGH, WARMUP, Pace

CAUSE = "A game is running. Close it."


class Watched:
    """Tracks steps that are given as (seconds, images)."""

    def __init__(self) -> None:
        self.pace = Pace(self._cause)
        self.step, self.asked, self.way = 0, 0, "whole batches"

    def _cause(self) -> str:
        self.asked += 1
        return CAUSE

    def add(self, seconds: Iterable[float], images: int = 4) -> None:
        for one in seconds:
            self.step += 1
            rows = (RowResult("a.png", 0.5, 0.5),) * images
            self.pace.add(StepReport(self.step, 0.5, rows, {"model": 1e-4}, 1.0, one, 1.0), self.way)


@pytest.fixture
def used_to() -> Callable[..., Watched]:
    """Return a watch that knows the usual time."""

    def make(seconds: float = 2.0) -> Watched:
        watched = Watched()
        watched.add([seconds] * (WARMUP + ENOUGH))
        return watched

    return make


def test_a_slow_down_that_lasts_is_said_at_once_with_its_cause(used_to, caplog):
    watched = used_to()
    watched.add([8.0] * 4)
    assert not caplog.messages
    watched.add([8.0])
    assert len(caplog.messages) == 1
    for fact in ("From step 16 on", "4 times", "8 s instead of 2 s", CAUSE):
        assert fact in caplog.text
    watched.add([8.0] * 50)  # it stays one slow period: slow times do not become the usual ones
    assert len(caplog.messages) == watched.asked == 1
    assert watched.pace.lines() == [caplog.messages[0]]


def test_steps_that_are_fast_again_end_it(used_to, caplog):
    watched = used_to()
    watched.add([8.0] * 10)
    watched.add([2.0] * 5)
    assert "as fast as before" in caplog.messages[-1]
    assert "From step 16 to 25, a step took" in watched.pace.lines()[0]
    watched.add([8.0] * 10)
    assert watched.asked == len(watched.pace.lines()) == 2


def test_short_steps_must_be_slow_for_some_seconds(used_to):
    watched = used_to(0.05)
    watched.add([0.5] * 19)
    assert watched.pace.lines() == []
    watched.add([0.5] * 2)
    assert len(watched.pace.lines()) == 1


@pytest.mark.parametrize(
    "seconds",
    [
        [2.0, 2.0, 60.0, 2.0, 2.0] * 20,  # one hiccup in five
        [2.0, 9.0, 2.0, 9.0, 2.0] * 20,
        [5.0] * 100,  # two and a half times
        [2 + number / 50 for number in range(400)],  # a laptop that warms up
        [100_000.0, *[2.0] * 20],  # a computer that slept
    ],
)
def test_what_is_no_lasting_slow_down_is_not_called_one(used_to, seconds):
    watched = used_to()
    watched.add(seconds)
    assert watched.pace.lines() == []


def test_first_steps_say_nothing_of_the_rest():
    watched = Watched()
    watched.add([60.0] * WARMUP)
    watched.add([2.0] * 100)
    assert watched.pace.lines() == []
    watched.add([8.0] * 10)
    assert len(watched.pace.lines()) == 1


def test_large_and_small_steps_have_each_their_own_usual():
    """Buckets may have many images or a single one."""
    watched = Watched()
    for _ in range(40):
        watched.add([2.0], images=1)
    for _ in range(40):
        watched.add([8.0], images=4)
    for _ in range(20):
        watched.add([2.0], images=1)
        watched.add([8.0], images=4)
    assert watched.pace.lines() == []
    for _ in range(5):
        watched.add([8.0], images=1)
        watched.add([32.0], images=4)
    assert "4 times" in watched.pace.lines()[0]


def test_after_a_change_of_the_plan_the_usual_is_another(used_to):
    watched = used_to()
    watched.way = "smaller batches"
    watched.add([8.0] * 50)
    assert watched.pace.lines() == []
    watched.add([30.0] * 10)
    assert "30 s instead of 8 s" in watched.pace.lines()[0]


def test_many_slow_times_are_counted(used_to):
    watched = used_to()
    for _ in range(8):
        watched.add([8.0] * 10)
        watched.add([2.0] * 10)
    assert watched.pace.lines()[-1] == "This happened 3 more times."
