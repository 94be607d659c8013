"""Measurement of what the finished LoRA does to images, compared with the base model alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from PIL import Image

from ..adapters.adapters import Adapters
from ..config import ResolvedConfig
from ..data.images.dataset import ImageDataset
from ..hardware.out_of_memory import twice
from ..models.base import BaseModel
from ..models.previews import Sampling
from .image_metrics import ImageMeasures, Pictures, compare, measure_samplings, sheet
from .result_evaluation import MOST_TIME, ResultEvaluation, is_measured, why_not


class ImageEvaluation(ResultEvaluation):
    """Draws images with and without the LoRA, and measures how they differ.

    Nothing is drawn if `measure` is `auto` and it would take too long, or before the time of a sampling step is known.
    If drawing runs out of memory (OOM), the report says so.

    Args:
        base_model: the base model that carries the adapters.
        dataset: the images that are trained.
        config: the settings of the run.
        sampling: the settings of the samples during training, most of which are kept.

    Attributes:
        measures: the measurements; None if there are none.
    """

    measures: ImageMeasures | None

    def __init__(
        self, base_model: BaseModel, dataset: ImageDataset, config: ResolvedConfig, sampling: Sampling
    ) -> None:
        self._base_model, self._dataset, self._config = base_model, dataset, config
        self._samplings: Mapping[str, Sampling] = {}
        self.measures = None
        self._seconds = 0.0
        self._not_measured = ""
        if is_measured(config):
            self._samplings = measure_samplings(dataset, sampling, base_model.architecture.id)
        else:
            self._not_measured = f"No images were measured, because {why_not(config)}."

    @property
    def samplings(self) -> Sequence[Sampling]:
        return tuple(self._samplings.values())

    def measure(
        self, adapters: Adapters, training_seconds: float, seconds_per_sampling_step: float | None
    ) -> Mapping[str, Image.Image | str]:
        if not self._samplings or seconds_per_sampling_step is None:
            return {}
        steps = sum(sampling.steps * len(sampling.prompts) for sampling in self._samplings.values())
        expected = 2 * steps * seconds_per_sampling_step
        if self._config.measure == "auto" and expected > MOST_TIME * training_seconds:
            self._not_measured = (
                f"No images were measured, because drawing them would have taken about {expected:.0f} s after a "
                f"training of {training_seconds:.0f} s. Set measure to always to measure them anyway."
            )
            return {}
        started = time.monotonic()
        drawn = self._base_model.memory.first_that_fits(twice(lambda: self._drawn(adapters)))
        if drawn.result is None:
            self._not_measured = "No images were measured, because there was not enough memory to draw them."
            return {}
        base, trained = drawn.result
        self.measures = compare(base, trained, self._dataset.images)
        self._seconds = time.monotonic() - started
        return {"measures.png": sheet(base, trained)}

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
        if self.measures is None:
            return [self._not_measured] if complete and self._not_measured else []
        drawn = 2 * sum(len(sampling.prompts) for sampling in self._samplings.values())
        return [
            f"Measured on {drawn} images in {self._seconds:.1f} s (measures.png):",
            *(f"  {line}" for line in self.measures.lines(self._dataset.trigger_word)),
        ]
