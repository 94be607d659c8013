"""Measurement of what the finished LoRA does to images, compared with the base model alone."""

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
"""Shorter runs are quick tests, and are only measured if `measure` is `always`."""

MOST_TIME = 0.5
"""The largest share of the training time that drawing the images may take, unless `measure` is `always`."""


def is_measured(config: ResolvedConfig) -> bool:
    """Return whether a run is measured even without held-out examples."""
    if config.measure == "never":
        return False
    return config.measure == "always" or config.max_train_steps >= LEAST_MEASURED_STEPS


def samplings_to_measure(
    base_model: BaseModel, dataset: ImageDataset, config: ResolvedConfig, sampling: Sampling
) -> dict[str, Sampling]:
    """Return the settings of the images to draw, by name; empty if the run is not measured.

    Args:
        base_model: the base model to draw with.
        dataset: the images that are trained.
        config: the settings of the run.
        sampling: the settings of the samples during training, most of which are kept.
    """
    return measure_samplings(dataset, sampling, base_model.architecture.id) if is_measured(config) else {}


class ImageEvaluation:
    """Draws images with and without the LoRA, and measures how they differ.

    Args:
        base_model: the base model that carries the adapters.
        dataset: the images that were trained.
        config: the settings of the run.
        samplings: the settings that `samplings_to_measure` returned, with which the previewer was prepared.

    Attributes:
        measures: the measurements; None if there are none.
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
            self._not_measured = f"No images were measured, because {why}."

    def measure(
        self, adapters: Adapters, training_seconds: float, seconds_per_sampling_step: float | None
    ) -> Image.Image | None:
        """Draw images with the adapters as they are and with the base model alone, and measure them.

        Nothing is drawn if `measure` is `auto` and it would take too long. If drawing runs out of memory (OOM), the
        report says so.

        Args:
            adapters: the trained adapters.
            training_seconds: the training time in seconds.
            seconds_per_sampling_step: the seconds per sampling step of one image; None if that is unknown, and then
                nothing is drawn.

        Returns:
            All images in one, those without the LoRA above those with it; None if nothing was drawn.
        """
        if not self._samplings or seconds_per_sampling_step is None:
            return None
        steps = sum(sampling.steps * len(sampling.prompts) for sampling in self._samplings.values())
        expected = 2 * steps * seconds_per_sampling_step
        if self._config.measure == "auto" and expected > MOST_TIME * training_seconds:
            self._not_measured = (
                f"No images were measured, because drawing them would have taken about {expected:.0f} s after a "
                f"training of {training_seconds:.0f} s. Set measure to always to measure them anyway."
            )
            return None
        started = time.monotonic()
        drawn = self._base_model.memory.first_that_fits(twice(lambda: self._drawn(adapters)))
        if drawn.result is None:
            self._not_measured = "No images were measured, because there was not enough memory to draw them."
            return None
        base, trained = drawn.result
        self.measures = compare(base, trained, self._dataset.images)
        self._seconds = time.monotonic() - started
        return sheet(base, trained)

    def _drawn(self, adapters: Adapters) -> tuple[Pictures, Pictures]:
        """Return the images without the LoRA and those with it."""

        def pictures() -> Pictures:
            drawn = {name: self._base_model.previewer.draw(one) for name, one in self._samplings.items()}
            return {name: picture for name, picture in drawn.items() if isinstance(picture, torch.Tensor)}

        with adapters.without_dropout():
            trained = pictures()
            with adapters.without_effect():
                return pictures(), trained

    def lines(self, complete: bool) -> list[str]:
        """Return the report lines about the measurements, or about why there are none.

        Args:
            complete: whether the run reached its end.
        """
        if self.measures is None:
            return [self._not_measured] if complete and self._not_measured else []
        drawn = 2 * sum(len(sampling.prompts) for sampling in self._samplings.values())
        return [
            f"Measured on {drawn} images in {self._seconds:.1f} s (measures.png):",
            *(f"  {line}" for line in self.measures.lines(self._dataset.trigger_word)),
        ]
