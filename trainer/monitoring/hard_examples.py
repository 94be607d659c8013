"""Which images stay hard, and which are known by heart first.

Each error is compared with what has been usual at its noise lately; what is left is the image's own.
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
"""Times an image is shown that its error is averaged over. One has a spread of about 40 %, so 16 have 10 %."""

CLEAR = 1.5
"""How many times the usual an error is (or the usual it) before it is worth a word: far outside that spread."""

OUTLIER = 3.0
"""How many standard deviations, estimated from the median as for normal values, it lies from the other images."""

LEARNED = 1.25
"""How many times smaller, beside the others, the error of an image becomes that was learned and not easy at once."""

HARD_WEIGHT = 0.5
"""Of the loss of an image that stays hard. Not less: it may be the one that shows something rare."""


@dataclass
class _Track:
    """An image's errors as logarithms of multiples of what was usual then: its first and its latest."""

    first: list[float] = field(default_factory=list)
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    @property
    def known(self) -> bool:
        """Whether it was shown often enough."""
        return len(self.latest) == WINDOW


class HardExamples:
    """Follows the images of a run.

    Args:
        names: of the images to watch. Others, as regularization images, are left out of everything.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._tracks = {name: _Track() for name in names}
        self._usual = ErrorBaseline()
        self._hard: list[str] | None = None

    def add(self, rows: Sequence[RowResult]) -> None:
        """What a step trained on."""
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
        """What `restore` needs, in plain values."""
        tracks = {name: [list(track.first), list(track.latest)] for name, track in self._tracks.items()}
        return {"tracks": tracks, "usual": self._usual.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state` of a watch over the same images."""
        self._usual.restore(state["usual"])
        for name, (first, latest) in state["tracks"].items():
            self._tracks[name] = _Track(list(first), deque(latest, maxlen=WINDOW))

    def scores(self) -> dict[str, float]:
        """How many times that of the median image the error of each image is lately; only of those that were shown
        often enough."""
        return _beside_the_others({name: track.latest for name, track in self._tracks.items() if track.known})

    def hard(self) -> list[str]:
        """Images that stay hard, the hardest first."""
        if self._hard is None:  # a step asks for every batch
            scores = self.scores()
            high = [name for name in self._outliers(scores) if scores[name] > 1]
            self._hard = sorted(high, key=scores.__getitem__, reverse=True)
        return self._hard

    def memorised(self) -> list[str]:
        """Images that were learned before the others, the best known first."""
        scores = self.scores()
        at_first = _beside_the_others({name: self._tracks[name].first for name in scores})
        low = [name for name in self._outliers(scores) if scores[name] < 1]
        return sorted((name for name in low if at_first[name] / scores[name] >= LEARNED), key=scores.__getitem__)

    def _outliers(self, scores: Mapping[str, float]) -> list[str]:
        """Images that are clearly unlike the others."""
        if not scores:
            return []
        logarithms = {name: math.log(score) for name, score in scores.items()}
        spread = 1.4826 * statistics.median(map(abs, logarithms.values()))  # they are 0 in the median
        limit = max(math.log(CLEAR), OUTLIER * spread)
        return [name for name, value in logarithms.items() if abs(value) >= limit]

    def weighted(self, losses: RowLosses, rows: Sequence[CachedExample]) -> RowLosses:
        """The losses of a batch, those of hard images times `HARD_WEIGHT`."""
        hard = set(self.hard())
        weights = [HARD_WEIGHT if row.name in hard else 1.0 for row in rows]
        return replace(losses, values=losses.values * torch.tensor(weights, device=losses.values.device))

    def lines(self, downweighted: bool) -> list[str]:
        """The images to look at, in words; nothing where none stands out."""
        scores, lines = self.scores(), []
        if hard := self.hard():
            names = [f"{name} ({scores[name]:.1f} times the usual error)" for name in hard]
            done = " They counted half." if downweighted else ""
            lines.append(
                f"Stayed hard: {listed(names)}.{done} See whether the caption says what is in the image, and whether "
                "it belongs to the others."
            )
        if memorised := self.memorised():
            names = [f"{name} ({scores[name]:.1f} times the usual error)" for name in memorised]
            lines.append(
                f"Learned before the others: {listed(names)}. The LoRA may copy them: see whether they are repeated "
                "or very simple."
            )
        return lines


def _beside_the_others(tracks: Mapping[str, Iterable[float]]) -> dict[str, float]:
    """Geometric means, as multiples of the median image's."""
    means = {name: statistics.fmean(track) for name, track in tracks.items()}
    middle = statistics.median(means.values()) if means else 0.0
    return {name: math.exp(mean - middle) for name, mean in means.items()}
