"""The measurement of what a finished LoRA does, which each kind of model has a form of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from ..adapters.adapters import Adapters
from ..config import ResolvedConfig
from ..models.previews import Sampling
from .image_metrics import ImageMeasures
from .text_metrics import TextMeasures

LEAST_MEASURED_STEPS = 50
"""Shorter runs are quick tests, and are only measured if `measure` is `always`."""

MOST_TIME = 0.5
"""The largest share of the training time that measuring may take, unless `measure` is `always`."""


def is_measured(config: ResolvedConfig) -> bool:
    """Return whether a run is measured even without held-out examples."""
    if config.measure == "never":
        return False
    return config.measure == "always" or config.max_train_steps >= LEAST_MEASURED_STEPS


def why_not(config: ResolvedConfig) -> str:
    """Return the reason why a run is not measured, as a clause."""
    return "measure is never" if config.measure == "never" else f"the run has fewer than {LEAST_MEASURED_STEPS} steps"


class ResultEvaluation:
    """Measures a finished LoRA beside the base model alone.

    This class measures nothing. It serves models that make neither images nor texts, whose runs are judged by their
    errors.

    Attributes:
        measures: the measurements; None if there are none.
        makes_texts: whether the model writes texts.
        conditions: what the error is measured under, as the end of a phrase, or "".
    """

    measures: ImageMeasures | TextMeasures | None = None
    makes_texts = False
    conditions = ", fixed noise"

    @property
    def samplings(self) -> Sequence[Sampling]:
        """The settings of samples that the previewer has to be prepared for."""
        return ()

    def measure(
        self, adapters: Adapters, training_seconds: float, seconds_per_sampling_step: float | None
    ) -> Mapping[str, Image.Image | str]:
        """Measure the model with the adapters as they are and without them.

        Args:
            adapters: the trained adapters.
            training_seconds: the training time in seconds.
            seconds_per_sampling_step: the seconds per sampling step of one sample; None if that is unknown.

        Returns:
            The files that show what was compared, by name.
        """
        return {}

    def lines(self, complete: bool) -> list[str]:
        """Return the report lines about the measurements, or about why there are none.

        Args:
            complete: whether the run reached its end.
        """
        return []

    def error_text(self, error: float) -> str:
        """Return an error as text for the report."""
        return f"{error:.4f}"
