"""The pictures that a run draws while it trains."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from PIL import Image
from torch import Tensor

from ..adapters.adapters import Adapters
from ..config import ResolvedConfig
from ..data.images.buckets import Buckets
from ..data.images.dataset import Dataset
from ..files.pictures import side_by_side, to_picture
from ..memory.retry import retried
from ..models.base import BaseModel, Sampling
from ..runs.best_effort import BestEffort
from ..runs.paths import RunFiles

BY_DEFAULT = 2
"""Captions that are drawn when the user names no prompts."""


class PreviewSamples:
    """
    Attributes:
        sampling: what is drawn.
        rounds: (prompts, height, width, 3) in 0..1 for each round that was drawn, in order.
    """

    def __init__(
        self, base_model: BaseModel, dataset: Dataset, config: ResolvedConfig, files: RunFiles, extras: BestEffort
    ) -> None:
        self._base_model, self._files, self._extras = base_model, files, extras
        self.sampling = _sampling(config, dataset)
        self.rounds: list[Tensor] = []
        self._steps: list[int] = []
        self._seconds = 0.0
        self._sampling_steps = 0

    def are_drawn(self, step: int) -> bool:
        """Whether there are some of the state after `step` steps."""
        return step in self._steps

    @property
    def seconds_per_sampling_step(self) -> float | None:
        """Of one picture; None before the first."""
        return self._seconds / self._sampling_steps if self._sampling_steps else None

    def draw(self, adapters: Adapters, step: int) -> Image.Image | None:
        """Draw with the adapters as they are after `step` steps, and save the pictures.

        Returns:
            All of them side by side; None where memory did not suffice.
        """

        def drawn() -> Tensor:
            with adapters.without_dropout():
                return self._base_model.sample(self.sampling)

        started = time.monotonic()
        pictures = retried(self._base_model, drawn)
        if pictures is None:
            self._extras.note(f"Memory did not suffice to draw samples after step {step}, so they were left out.")
            return None
        self._seconds += time.monotonic() - started
        self._sampling_steps += len(pictures) * self.sampling.steps
        self.rounds.append(pictures)
        self._steps.append(step)
        with self._extras.writing("The samples"):
            for number, picture in enumerate(pictures, start=1):
                self._files.write_sample(step, number, to_picture(picture))
        return side_by_side(pictures)

    def state(self) -> dict[str, Any]:
        """What `restore` needs, in plain values: the pictures are files."""
        return {"steps": list(self._steps), "seconds": self._seconds, "sampling_steps": self._sampling_steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self._seconds, self._sampling_steps = state["seconds"], state["sampling_steps"]
        size = (self.sampling.height, self.sampling.width)
        pictures = {step: found for step, found in self._files.read_samples().items() if found.shape[1:3] == size}
        self._steps = [step for step in state["steps"] if step in pictures]
        self.rounds[:] = [pictures[step] for step in self._steps]


def _sampling(config: ResolvedConfig, dataset: Dataset) -> Sampling:
    """Samples are square, of the training's resolution, rounded as its images are."""
    prompts = [line.strip() for line in config.sample_prompts.splitlines() if line.strip()]
    if not prompts:
        captions = dict.fromkeys(image.caption for image in dataset.images)
        prompts = list(captions)[:BY_DEFAULT]
    width, height = Buckets.of(config, config.resolution).size(config.resolution, config.resolution)
    return Sampling(
        prompts=tuple(prompts),
        width=width,
        height=height,
        seed=config.seed,
        steps=config.sample_steps,
        cfg=config.sample_cfg,
        sampler=config.sample_sampler,
        scheduler=config.sample_scheduler,
        negative=config.sample_negative_prompt,
    )
