"""Detection of examples that stay hard to learn, and of examples that are memorised before the others.

Each error is divided by the error that has lately been usual at its noise level; the rest depends on the example alone.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..events.step import RowResult
from ..messages.wording import listed
from ..models.examples import CachedExample, RowLosses
from .error_baseline import ErrorBaseline

WINDOW = 16
"""The number of an example's latest errors that are averaged. One has a spread of about 40 %, so 16 have 10 %."""

CLEAR = 1.5
"""The least ratio of an error to the usual one, or the other way round, that is reported: far outside that spread."""

OUTLIER = 3.0
"""The least distance from the other examples that is reported, in standard deviations estimated from the median."""

LEARNED = 1.25
"""The least fall of an example's error, relative to the others, that shows that it was learned, not just easy."""

HARD_WEIGHT = 0.5
"""The weight of the loss of an example that stays hard. It is not lower, because the example may be rare."""

_CHECK = {
    "image": "Check whether the caption describes what is in the image, and whether the image belongs with the others.",
    "row": "Check whether the answer is right, and whether the row belongs with the others.",
}
"""What to check of examples that stay hard, by the word for an example."""


@dataclass
class _Track:
    """The first and the latest errors of an example, as logarithms of their ratio to the usual error at the time."""

    first: list[float] = field(default_factory=list)
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    @property
    def known(self) -> bool:
        """Whether the example was shown often enough to judge it."""
        return len(self.latest) == WINDOW


class HardExamples:
    """Tracks the error of each example of a run.

    Args:
        names: the names of the examples to track; others, such as regularization examples, are ignored.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._tracks = {name: _Track() for name in names}
        self._usual = ErrorBaseline()
        self._hard: list[str] | None = None

    def add(self, rows: Sequence[RowResult]) -> None:
        """Record the errors of a step."""
        self._hard = None
        for row in rows:
            track = self._tracks.get(row.name)
            own = None if track is None else self._usual.add(row)
            if track is None or own is None:
                continue
            track.latest.append(own)
            if len(track.first) < WINDOW:
                track.first.append(own)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as plain values."""
        tracks = {name: [list(track.first), list(track.latest)] for name, track in self._tracks.items()}
        return {"tracks": tracks, "usual": self._usual.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state` for the same examples."""
        self._usual.restore(state["usual"])
        for name, (first, latest) in state["tracks"].items():
            self._tracks[name] = _Track(list(first), deque(latest, maxlen=WINDOW))

    def scores(self) -> dict[str, float]:
        """Return the latest error of each example as a multiple of that of the median example.

        Images that were not shown often enough are left out.
        """
        return _beside_the_others({name: track.latest for name, track in self._tracks.items() if track.known})

    def hard(self) -> list[str]:
        """Return the names of examples that stay hard, the hardest first."""
        if self._hard is None:  # cached, because every batch of a step asks for it
            scores = self.scores()
            high = [name for name in self._outliers(scores) if scores[name] > 1]
            self._hard = sorted(high, key=scores.__getitem__, reverse=True)
        return self._hard

    def memorised(self) -> list[str]:
        """Return the names of examples that were learned before the others, the one with the lowest error first."""
        scores = self.scores()
        at_first = _beside_the_others({name: self._tracks[name].first for name in scores})
        low = [name for name in self._outliers(scores) if scores[name] < 1]
        return sorted((name for name in low if at_first[name] / scores[name] >= LEARNED), key=scores.__getitem__)

    def _outliers(self, scores: Mapping[str, float]) -> list[str]:
        """Return the names of examples whose errors are clearly unlike those of the others."""
        if not scores:
            return []
        logarithms = {name: math.log(score) for name, score in scores.items()}
        spread = 1.4826 * statistics.median(map(abs, logarithms.values()))  # their median is 0
        limit = max(math.log(CLEAR), OUTLIER * spread)
        return [name for name, value in logarithms.items() if abs(value) >= limit]

    def weighted(self, losses: RowLosses, rows: Sequence[CachedExample]) -> RowLosses:
        """Return the losses of a batch, with those of hard examples multiplied by `HARD_WEIGHT`."""
        hard = set(self.hard())
        weights = [HARD_WEIGHT if row.name in hard else 1.0 for row in rows]
        return replace(losses, values=losses.values * torch.tensor(weights, device=losses.values.device))

    def lines(self, downweighted: bool, unit: str) -> list[str]:
        """Return the report lines about examples to look at; empty if none stands out.

        Args:
            downweighted: whether hard examples counted less.
            unit: the word for an example in the singular.
        """
        scores, lines = self.scores(), []
        if hard := self.hard():
            names = [f"{name} ({scores[name]:.1f} times the usual error)" for name in hard]
            done = " They counted half in the loss." if downweighted else ""
            check = _CHECK.get(unit, f"Check whether the {unit} belongs with the others.")
            lines.append(f"Hard to learn: {listed(names)}.{done} {check}")
        if memorised := self.memorised():
            names = [f"{name} ({scores[name]:.1f} times the usual error)" for name in memorised]
            lines.append(
                f"Learned before the others: {listed(names)}. The LoRA may copy them: check whether they are repeated "
                "or very simple."
            )
        return lines


def _beside_the_others(tracks: Mapping[str, Iterable[float]]) -> dict[str, float]:
    """Return the geometric mean for each example, as a multiple of that of the median example."""
    means = {name: statistics.fmean(track) for name, track in tracks.items()}
    middle = statistics.median(means.values()) if means else 0.0
    return {name: math.exp(mean - middle) for name, mean in means.items()}
