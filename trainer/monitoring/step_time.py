"""Detection of slow steps."""

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
"""The number of first steps to ignore, in which kernels are chosen and memory is allocated."""

ENOUGH = 10
"""The number of steps with the same number of examples that are needed to know what is usual for it."""

WINDOW = 100
"""The number of latest such steps whose median is the usual time."""

SLOW = 3.0
"""The least ratio of a slow step's time to the usual; other shapes or a warm card cause less."""

WHOLE_AGAIN = 1.5
"""The ratio to the usual time below which a slow period is over."""

LEAST_SLOW_STEPS, LEAST_SLOW_SECONDS = 5, 10.0
"""The fewest steps and seconds of a slow period that is reported."""

MOST_TOLD = 5
"""The number of slow periods that the report describes."""


@dataclass
class SlowTime:
    """A period of slow steps.

    Attributes:
        first: the number of its first step.
        seconds: the median time of its steps, in seconds.
        usual: the usual time of such steps, in seconds.
        cause: sentences about the likely cause and what to do.
        last: the number of its last step; None while it lasts.
    """

    first: int
    seconds: float
    usual: float
    cause: str
    last: int | None = None

    def text(self) -> str:
        """Return sentences about the period and its cause."""
        steps = f"From step {self.first} on" if self.last is None else f"From step {self.first} to {self.last}"
        slower = f"{self.seconds / self.usual:.0f} times as long as usual"
        return f"{steps}, a step took {slower} ({self.seconds:.2g} s instead of {self.usual:.2g} s). {self.cause}"


@dataclass(frozen=True)
class _Step:
    number: int
    seconds: float
    usual: float

    @property
    def times(self) -> float:
        return self.seconds / self.usual


class Pace:
    """Tracks the duration of steps, and warns when they become slow.

    The usual time is learned from the run itself, separately for each number of examples in a step. All buckets have
    about the same area, but the last batch of a bucket may be smaller.

    Args:
        cause: a function that finds out why steps may be slow at the moment, and returns sentences about it.
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
        """Record a step, and warn when steps have become slow.

        Args:
            report: the report of the step.
            way: identifies how the step was computed; when it changes, the usual time is learned again.
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
        while (
            len(latest) > LEAST_SLOW_STEPS
            and sum(one.seconds for one in latest) - latest[0].seconds >= LEAST_SLOW_SECONDS
        ):
            latest.popleft()
        times = statistics.median(one.times for one in latest)
        if self._now is not None:
            if times < WHOLE_AGAIN:
                slow = (one.number for one in reversed(latest) if one.times >= WHOLE_AGAIN)
                self._now.last = next(slow, step.number - 1)
                log.warning("Steps are as fast as before again.")
                self._now = None
        elif (
            times >= SLOW
            and len(latest) >= LEAST_SLOW_STEPS
            and sum(one.seconds for one in latest) >= LEAST_SLOW_SECONDS
        ):
            self._warn()

    def _warn(self) -> None:
        slow = [one for one in self._latest if one.times >= SLOW]
        seconds = statistics.median(one.seconds for one in slow)
        usual = statistics.median(one.usual for one in slow)
        self._now = SlowTime(slow[0].number, seconds, usual, self._cause())
        self._slow_times.append(self._now)
        log.warning("%s", self._now.text())

    def lines(self) -> list[str]:
        """Return the report lines about slow periods; empty if there were none."""
        lines = [one.text() for one in self._slow_times[:MOST_TOLD]]
        more = len(self._slow_times) - MOST_TOLD
        if more > 0:
            lines.append(f"This happened {counted(more, 'more time')}.")
        return lines
