"""Watches how long the steps of a run take."""

from __future__ import annotations

import logging
import statistics
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from ..events.step import StepReport
from ..messages.wording import counted

log = logging.getLogger(__name__)

WARMUP = 5
"""First steps, in which kernels are chosen and memory is claimed."""

ENOUGH = 10
"""Steps that say what is usual for their number of images."""

WINDOW = 100
"""Of them, the latest that count."""

SLOW = 3.0
"""Times the usual. A step of another shape, or a warm card, makes less."""

WHOLE_AGAIN = 1.5
"""Times the usual, under which a slow time is over."""

LEAST_STEPS, LEAST_SECONDS = 5, 10.0
"""For how long it has to be slow before a word is said."""

MOST_TOLD = 5
"""Slow times that the report describes."""


@dataclass
class SlowTime:
    """Steps that took `seconds`, in the middle, instead of the `usual`. `last` is None while it goes on."""

    first: int
    seconds: float
    usual: float
    cause: str
    last: int | None = None

    def text(self) -> str:
        steps = f"From step {self.first} on" if self.last is None else f"From step {self.first} to {self.last}"
        slower = f"{self.seconds / self.usual:.0f} times as long as before"
        return f"{steps} a step took {slower} ({self.seconds:.2g} s instead of {self.usual:.2g} s). {self.cause}"


@dataclass(frozen=True)
class _Step:
    number: int
    seconds: float
    usual: float

    @property
    def times(self) -> float:
        return self.seconds / self.usual


class Pace:
    """What is usual is learned from the run itself, for each number of images that a step shows: buckets have about
    the same area, but the last batch of one may be small.

    Args:
        cause: finds out why steps may be slow at this moment, and says what to do, in sentences.
    """

    def __init__(self, cause: Callable[[], str]) -> None:
        self._cause = cause
        self._slow_times: list[SlowTime] = []
        self._start_over(None)

    def _start_over(self, way: Hashable) -> None:
        self._way = way
        self._warming_up = WARMUP
        self._usual: dict[int, deque[float]] = {}
        self._latest: deque[_Step] = deque()
        self._now: SlowTime | None = None

    def add(self, report: StepReport, way: Hashable) -> None:
        """Take note of a step, and warn when steps have become slow.

        Args:
            way: in which it was done. What was usual in another says nothing.
        """
        if way != self._way:
            self._start_over(way)
        if self._warming_up:
            self._warming_up -= 1
            return
        usual = self._usual.setdefault(len(report.rows), deque(maxlen=WINDOW))
        if len(usual) < ENOUGH:
            usual.append(report.seconds)
            return
        step = _Step(report.step, report.seconds, statistics.median(usual))
        if step.times < SLOW:
            usual.append(report.seconds)
        latest = self._latest
        latest.append(step)
        while len(latest) > LEAST_STEPS and sum(one.seconds for one in latest) - latest[0].seconds >= LEAST_SECONDS:
            latest.popleft()
        times = statistics.median(one.times for one in latest)
        if self._now is not None:
            if times < WHOLE_AGAIN:
                slow = (one.number for one in reversed(latest) if one.times >= WHOLE_AGAIN)
                self._now.last = next(slow, step.number - 1)
                log.warning("Steps are as fast as before again.")
                self._now = None
        elif times >= SLOW and len(latest) >= LEAST_STEPS and sum(one.seconds for one in latest) >= LEAST_SECONDS:
            self._warn()

    def _warn(self) -> None:
        slow = [one for one in self._latest if one.times >= SLOW]
        seconds = statistics.median(one.seconds for one in slow)
        usual = statistics.median(one.usual for one in slow)
        self._now = SlowTime(slow[0].number, seconds, usual, self._cause())
        self._slow_times.append(self._now)
        log.warning("%s", self._now.text())

    def lines(self) -> list[str]:
        """For the report; nothing where all steps took their time."""
        lines = [one.text() for one in self._slow_times[:MOST_TOLD]]
        more = len(self._slow_times) - MOST_TOLD
        if more > 0:
            lines.append(f"So it was {counted(more, 'time')} more.")
        return lines
