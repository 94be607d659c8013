"""Detection of NaN, infinite values and spikes in the loss and gradients of a step, before they change the weights."""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..config import ResolvedConfig
from ..errors import CrucibleError
from ..events.step import Gradients
from ..messages.wording import counted, listed
from ..optim.stepper import CAREFUL_GRAD_NORM
from .error_baseline import ErrorBaseline

log = logging.getLogger(__name__)

MOST_RETURNS = 5
"""The most times that a run goes back to its last good state. The learning rate is halved each time, so what still
fails at a thirty-second of it has another cause."""

LOW_LEARNING_RATE = 5e-5
"""A learning rate that is being lowered stops here once before it is lowered further: few LoRAs diverge at it."""

WINDOW = 100
"""The number of latest steps that define what is usual."""

ENOUGH = 30
"""The number of steps needed before spikes are detected."""

FAR = 8.0
"""The least distance of a spike above the median, in standard deviations of the logarithm. They are estimated from the
median absolute deviation."""

TIMES = 10.0
"""The least ratio of a spike to the median."""

MOST_IN_A_ROW = 5
"""The most spikes in a row; after that many, their size counts as usual."""

SMALLEST = 1e-12
"""The least value whose logarithm is taken."""

Action = Literal["go on", "skip", "go back"]

_CHECK = {"image": "Check the file and its caption", "row": "Check the row"}
"""What to check of an example that gives NaN, by the word for an example."""


@dataclass(frozen=True)
class Broken:
    """A step whose loss or gradient was NaN or infinite.

    Attributes:
        step: the number of the step, counted from 1.
        what: a description, such as "The loss of step 8 was nan".
        examples: the names of the examples with such a loss, or of all examples of the step.
        alone: whether other examples in the same step were fine.
    """

    step: int
    what: str
    examples: tuple[str, ...]
    alone: bool

    def text(self) -> str:
        """Return the description with the names of the examples."""
        return f"{self.what} with {listed(self.examples)}"


@dataclass(frozen=True)
class Spike:
    """A step that was skipped because of a spike.

    Attributes:
        step: the number of the step, counted from 1.
        what: the value that was too high: "gradient" or "error".
        times: the ratio of that value to the usual.
        examples: the names of the examples in the step.
    """

    step: int
    what: str
    times: float
    examples: tuple[str, ...]

    def text(self) -> str:
        """Return a description of the step."""
        return f"step {self.step} ({self.what} {self.times:.0f} times the usual, with {listed(self.examples)})"


class AnomalyDetector:
    """Decides what to do with a step whose loss or gradients are NaN, infinite or far above the usual.

    Args:
        config: the settings of the run.
        precision: the precision of the computation: fp32, fp16 or bf16.
        loss_scale: a function that returns the current loss scale.
        unit: the word for an example in the singular.

    Attributes:
        broken: the steps with NaN or infinite values, after which the run went back.
        spikes: the steps that were skipped.
    """

    def __init__(self, config: ResolvedConfig, precision: str, loss_scale: Callable[[], float], unit: str) -> None:
        self._unit = unit
        self._rate, self._precision, self._loss_scale = config.learning_rate, precision, loss_scale
        self.broken: list[Broken] = []
        self.spikes: list[Spike] = []
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._errors: deque[float] = deque(maxlen=WINDOW)
        self._usual = ErrorBaseline()
        self._missed: set[str] = set()
        self._in_a_row = 0

    @property
    def slowdown(self) -> float:
        """The factor on the learning rates, which is lower the more often the run went back."""
        return _lowered(self._rate, len(self.broken)) / self._rate

    def judge(self, step: int, gradients: Gradients) -> Action:
        """Decide what to do with the gradients of a step.

        Args:
            step: the number of the step, counted from 1.
            gradients: the loss and the gradients of the step.

        Returns:
            "go back" for NaN or infinite values, "skip" for a spike, otherwise "go on".
        """
        if math.isfinite(gradients.loss) and math.isfinite(gradients.norm):
            return "skip" if self._is_spike(step, gradients) else "go on"
        if math.isfinite(gradients.loss) and self._loss_scale() > 1:
            return "go on"  # only the scaled gradients overflowed: the scaler skips the step and lowers its scale
        self.broken.append(_broken(step, gradients))
        log.warning("%s.", self.broken[-1].text())
        return "go back"

    def _is_spike(self, step: int, gradients: Gradients) -> bool:
        """Return whether to skip the step as a spike.

        No example is skipped twice in a row, because rare and hard examples should be learned too.
        """
        ratios = [math.exp(own) for row in gradients.rows if (own := self._usual.add(row)) is not None]
        times = {
            "gradient": _times_usual(gradients.norm, self._norms),
            "error": _times_usual(statistics.fmean(ratios), self._errors) if ratios else 0.0,
        }
        what = max(times, key=times.__getitem__)
        is_far = times[what] > 0
        self._in_a_row = self._in_a_row + 1 if is_far else 0
        if self._in_a_row > MOST_IN_A_ROW:
            self._norms.clear()
            self._errors.clear()
            self._in_a_row, is_far = 0, False
        examples = _names(gradients)
        missed_last_turn = bool(self._missed.intersection(examples))
        self._missed.difference_update(examples)
        if not is_far or missed_last_turn:
            return False
        self._missed.update(examples)
        self.spikes.append(Spike(step, what, times[what], examples))
        log.warning("Skipped %s.", self.spikes[-1].text())
        return True

    def raise_when_hopeless(self, good_step: int, lora: Path) -> None:
        """Stop a run that has had too many steps with NaN or infinite values.

        Args:
            good_step: the number of steps done in the last good state.
            lora: the path that the LoRA will be saved to.

        Raises:
            CrucibleError: the run went back too often.
        """
        times = len(self.broken)
        if times <= MOST_RETURNS:
            return
        kept = f"The best LoRA up to step {good_step} is {lora}." if good_step else "No step was done before it."
        raise CrucibleError(
            f"{self.broken[-1].text()}. That was the {times}th time. Each time before, the run went back to its last "
            f"good state; learning_rate was lowered from {self._rate:g} to {_lowered(self._rate, times - 1):g}, and "
            f"gradients were clipped to {CAREFUL_GRAD_NORM:g}, which did not help. {kept} {self._remedy()}"
        )

    def _remedy(self) -> str:
        examples = self.broken[-1].examples
        if all(one.alone and one.examples == examples for one in self.broken):
            return (
                f"It was {listed(examples)} every time, while the other {self._unit}s of the step were fine. "
                f"{_CHECK.get(self._unit, 'Check it')}, or remove it from the dataset."
            )
        if self._precision == "fp16":
            return "Set mixed_precision to bf16 or fp32: fp16 cannot hold numbers above 65504."
        remedy = f"Set learning_rate to {self._rate / 10:g}"
        return f"{remedy}, or mixed_precision to fp32." if self._precision != "fp32" else f"{remedy}."

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as plain values."""
        return {
            "broken": [asdict(one) for one in self.broken],
            "spikes": [asdict(one) for one in self.spikes],
            "norms": list(self._norms),
            "errors": list(self._errors),
            "usual": self._usual.state(),
            "missed": sorted(self._missed),
            "in_a_row": self._in_a_row,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`."""
        self.broken = [Broken(**one) for one in state["broken"]]
        self.spikes = [Spike(**one) for one in state["spikes"]]
        self._norms = deque(state["norms"], maxlen=WINDOW)
        self._errors = deque(state["errors"], maxlen=WINDOW)
        self._usual.restore(state["usual"])
        self._missed = set(state["missed"])
        self._in_a_row = state["in_a_row"]

    def lines(self) -> list[str]:
        """Return the report lines about NaN and infinite steps and about spikes; empty if there were none."""
        lines = []
        if self.broken:
            told = "; ".join(dict.fromkeys(one.text() for one in self.broken))
            lines.append(
                f"{told}. The run went back to its last good state {counted(len(self.broken), 'time')}, learning_rate "
                f"was lowered from {self._rate:g} to {self._rate * self.slowdown:g}, and gradients were clipped to "
                f"{CAREFUL_GRAD_NORM:g}."
            )
        if self.spikes:
            told = listed([one.text() for one in self.spikes])
            lines.append(
                f"Skipped {counted(len(self.spikes), 'step')} that would have changed the LoRA too much: {told}. Check "
                f"{self._unit}s that are named more than once."
            )
        return lines


def _broken(step: int, gradients: Gradients) -> Broken:
    """Describe a step whose loss or gradient is NaN or infinite."""
    bad = [
        row.name
        for row, loss in zip(gradients.rows, gradients.losses, strict=True)
        if not (math.isfinite(loss) and math.isfinite(row.error))
    ]
    if math.isfinite(gradients.loss):
        return Broken(step, f"The gradient of step {step} was {gradients.norm}", _names(gradients), False)
    alone = 0 < len(bad) < len(gradients.rows)
    examples = tuple(dict.fromkeys(bad)) or _names(gradients)
    return Broken(step, f"The loss of step {step} was {gradients.loss}", examples, alone)


def _names(gradients: Gradients) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.name for row in gradients.rows))


def _lowered(rate: float, times: int) -> float:
    """Halve a learning rate `times` times, stopping once at `LOW_LEARNING_RATE` on the way.

    It cannot stay there, because the same step from the same state at the same rate would fail again.
    """
    for _ in range(times):
        rate = max(rate / 2, LOW_LEARNING_RATE) if rate > LOW_LEARNING_RATE else rate / 2
    return rate


def _times_usual(value: float, window: deque[float]) -> float:
    """Add a value to a window; return its ratio to the median of the window if it is a spike, otherwise 0."""
    number = math.log(max(value, SMALLEST))
    times = 0.0
    if len(window) >= ENOUGH:
        median = statistics.median(window)
        spread = 1.4826 * statistics.median(abs(one - median) for one in window)
        if number - median > max(math.log(TIMES), FAR * spread):
            times = math.exp(number - median)
    window.append(number)
    return times
