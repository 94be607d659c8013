"""The evidence that a run is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import ResolvedConfig
from ..monitoring.loss_swings import Swing
from .image_metrics import ImageMeasures
from .text_metrics import TextMeasures
from .validation import Round


@dataclass(frozen=True)
class Evidence:
    """The evidence that a run is judged by.

    Attributes:
        rounds: the rounds of validation, including the one before the first step.
        config: the settings of the run.
        examples: the number of training examples.
        usual_rate: the learning rate that suits the optimizer and the model.
        complete: whether the run reached its end.
        stopped_early: whether early stopping ended the run.
        measures: the measurements of what the model makes, or None.
        unit: the word for an example in the singular, such as "image".
        has_captions: whether the examples have captions.
        swing: the swing of the error during training, or None.
        makes_texts: whether the model writes texts. Their errors are in nats per token, and a run on them is only good
            if it was measured that the model forgets nothing.
    """

    rounds: Sequence[Round]
    config: ResolvedConfig
    examples: int
    usual_rate: float
    complete: bool = True
    stopped_early: bool = False
    measures: ImageMeasures | TextMeasures | None = None
    unit: str = "image"
    has_captions: bool = True
    swing: Swing | None = None
    makes_texts: bool = False

    def __bool__(self) -> bool:
        """Return whether anything was measured."""
        return bool(self.rounds) or self.measures is not None or self.swing is not None

    @property
    def has_validation(self) -> bool:
        """Whether held-out examples were measured."""
        return bool(self.rounds) and self.rounds[0].held_out is not None

    @property
    def measured_on(self) -> str:
        """The examples that the errors were measured on, such as "validation images"."""
        return f"{'validation' if self.has_validation else 'training'} {self.unit}s"

    @property
    def forgets(self) -> bool:
        """Whether answers of a language model to unrelated prompts changed."""
        return isinstance(self.measures, TextMeasures) and self.measures.changed > 0

    @property
    def errors(self) -> list[float]:
        """The error of each round, on held-out examples if there are any, otherwise on training examples."""
        return [one.error for one in self.rounds]

    @property
    def best(self) -> Round:
        """The round with the lowest error after training began."""
        return min(self.rounds[1:], key=lambda one: one.error)


class Signs:
    """Signs that a run has one fault.

    Attributes:
        reasons: what was seen, as sentences.
        advice: what to do about it, without repetitions, most promising first.
    """

    def __init__(self) -> None:
        self.reasons: tuple[str, ...] = ()
        self.advice: tuple[str, ...] = ()

    def add(self, reason: str, *advice: str) -> None:
        """Add what was seen, and what to do about it."""
        self.reasons = (*self.reasons, reason)
        self.advice = tuple(dict.fromkeys((*self.advice, *advice)))
