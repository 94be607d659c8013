"""Measures what the finished LoRA does to pictures, beside the base model alone."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from PIL import Image

from ..adapters.adapters import Adapters
from ..config import ResolvedConfig
from ..data.images.dataset import ImageDataset
from ..hardware.out_of_memory import twice
from ..models.base import BaseModel
from ..models.previews import Sampling
from .image_metrics import Measures, Pictures, compare, measure_samplings, sheet

LEAST_MEASURED_STEPS = 50
"""Shorter runs are trials and are measured only if the config says always."""

MOST_TIME = 0.5
"""The part of the training's time that drawing pictures may take unless the config says always."""


def is_measured(config: ResolvedConfig) -> bool:
    """Return whether a run is measured by more than its held-out examples."""
    if config.measure == "never":
        return False
    return config.measure == "always" or config.max_train_steps >= LEAST_MEASURED_STEPS


def samplings_to_measure(
    base_model: BaseModel, dataset: ImageDataset, config: ResolvedConfig, sampling: Sampling
) -> dict[str, Sampling]:
    """Return what will be drawn, by name; nothing if the run is not measured.

    Args:
        sampling: the settings of the samples during training; the pictures that are measured are drawn likewise.
    """
    return measure_samplings(dataset, sampling, base_model.architecture.id) if is_measured(config) else {}


class ImageEvaluation:
    """Draws pictures with and without the LoRA, and measures them.

    Args:
        base_model: the base model that carries the adapters.
        dataset: the images that were trained.
        config: the settings of the run.
        samplings: what to draw, as `samplings_to_measure` gave it and the previewer was prepared for.

    Attributes:
        measures: what was measured; None if nothing was.
    """

    def __init__(
        self,
        base_model: BaseModel,
        dataset: ImageDataset,
        config: ResolvedConfig,
        samplings: Mapping[str, Sampling],
    ) -> None:
        self._base_model, self._dataset, self._config = base_model, dataset, config
        self._samplings = samplings
        self.measures: Measures | None = None
        self._seconds = 0.0
        self._not_measured = ""
        if not samplings:
            few = f"the run has fewer than {LEAST_MEASURED_STEPS} steps"
            why = "measure is never" if config.measure == "never" else few
            self._not_measured = f"No pictures were measured, because {why}."

    def measure(
        self, adapters: Adapters, training_seconds: float, seconds_per_sampling_step: float | None
    ) -> Image.Image | None:
        """Draw with the adapters as they are, and with the base model alone.

        Args:
            training_seconds: how long the training took.
            seconds_per_sampling_step: how long one sampling step of a picture took; None if that is unknown, which
                draws nothing. On `auto` nothing is drawn either if it would take too long.

        Returns:
            All pictures, those without the LoRA above those with it; None if nothing was drawn.
        """
        if not self._samplings or seconds_per_sampling_step is None:
            return None
        steps = sum(sampling.steps * len(sampling.prompts) for sampling in self._samplings.values())
        expected = 2 * steps * seconds_per_sampling_step
        if self._config.measure == "auto" and expected > MOST_TIME * training_seconds:
            self._not_measured = (
                f"No pictures were measured, because that would have taken about {expected:.0f} s beside a training of "
                f"{training_seconds:.0f} s. Set measure to always to have it done."
            )
            return None
        started = time.monotonic()
        drawn = self._base_model.memory.first_that_fits(twice(lambda: self._drawn(adapters)))
        if drawn.result is None:
            self._not_measured = "No pictures were measured, because memory did not suffice to draw them."
            return None
        base, trained = drawn.result
        self.measures = compare(base, trained, self._dataset.images)
        self._seconds = time.monotonic() - started
        return sheet(base, trained)

    def _drawn(self, adapters: Adapters) -> tuple[Pictures, Pictures]:
        """Draw without and with the LoRA."""

        def pictures() -> Pictures:
            drawn = {name: self._base_model.previewer.draw(one) for name, one in self._samplings.items()}
            return {name: picture for name, picture in drawn.items() if isinstance(picture, torch.Tensor)}

        with adapters.without_dropout():
            trained = pictures()
            with adapters.without_effect():
                return pictures(), trained

    def lines(self, complete: bool) -> list[str]:
        """Return what was measured, for the report.

        Args:
            complete: whether the run went to its end.
        """
        if self.measures is None:
            return [self._not_measured] if complete and self._not_measured else []
        drawn = 2 * sum(len(sampling.prompts) for sampling in self._samplings.values())
        return [
            f"Measured on {drawn} pictures in {self._seconds:.1f} s (measures.png):",
            *(f"  {line}" for line in self.measures.lines(self._dataset.trigger_word)),
        ]
