"""The samples that a run draws while it trains."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from PIL import Image
from torch import Tensor

from ..adapters.adapters import Adapters
from ..files.pictures import side_by_side
from ..hardware.out_of_memory import twice
from ..models.base import BaseModel
from ..models.previews import Samples, Sampling
from ..runs.best_effort import BestEffort
from ..runs.paths import RunFiles


class PreviewSamples:
    """Draws rounds of samples and saves them.

    Args:
        base_model: the base model that carries the adapters.
        sampling: what to draw.
        files: where the samples are saved.
        best_effort: takes note of samples that cannot be drawn or saved.

    Attributes:
        rounds: the rounds that were drawn, in order.
    """

    def __init__(self, base_model: BaseModel, sampling: Sampling, files: RunFiles, best_effort: BestEffort) -> None:
        self._base_model, self._sampling = base_model, sampling
        self._files, self._best_effort = files, best_effort
        self.rounds: list[Samples] = []
        self._steps: list[int] = []
        self._seconds = 0.0
        self._sampling_steps = 0

    def are_drawn(self, step: int) -> bool:
        """Return whether there are samples of the state after `step` steps."""
        return step in self._steps

    @property
    def seconds_per_sampling_step(self) -> float | None:
        """How long one sampling step of one sample took; None before the first sample."""
        return self._seconds / self._sampling_steps if self._sampling_steps else None

    def draw(self, adapters: Adapters, step: int) -> Image.Image | str | None:
        """Draw with the adapters as they are after `step` steps, and save the samples.

        Returns:
            All samples of the round in one picture or text; None if there was not enough memory.
        """

        def drawn() -> Samples:
            with adapters.without_dropout():
                return self._base_model.previewer.draw(self._sampling)

        started = time.monotonic()
        samples = self._base_model.memory.first_that_fits(twice(drawn)).result
        if samples is None:
            self._best_effort.note(f"Memory did not suffice to draw samples after step {step}, so they were left out.")
            return None
        self._seconds += time.monotonic() - started
        self._sampling_steps += len(samples) * self._sampling.steps
        self.rounds.append(samples)
        self._steps.append(step)
        with self._best_effort.writing("The samples"):
            self._files.write_samples(step, samples)
        return side_by_side(samples) if isinstance(samples, Tensor) else "\n".join(samples)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, in plain values: the samples themselves are files."""
        return {"steps": list(self._steps), "seconds": self._seconds, "sampling_steps": self._sampling_steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`. Samples whose files are gone or of another size are drawn again."""
        self._seconds, self._sampling_steps = state["seconds"], state["sampling_steps"]
        found = {step: samples for step, samples in self._files.read_samples().items() if self._fits(samples)}
        self._steps = [step for step in state["steps"] if step in found]
        self.rounds[:] = [found[step] for step in self._steps]

    def _fits(self, samples: Samples) -> bool:
        size = (self._sampling.height, self._sampling.width)
        return not isinstance(samples, Tensor) or samples.shape[1:3] == size
