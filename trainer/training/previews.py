"""The samples that a run draws while it trains."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from PIL import Image
from torch import Tensor

from ..adapters.adapters import Adapters
from ..config import ResolvedConfig
from ..config.sample_prompts import read_prompts
from ..data.base import Dataset
from ..data.spread import spread
from ..files.pictures import side_by_side
from ..hardware.out_of_memory import twice
from ..models.base import BaseModel
from ..models.previews import Samples, Sampling
from ..runs.best_effort import BestEffort
from ..runs.paths import SAMPLES, RunFiles

DEFAULT_PREVIEWS = 2
"""The number of captions that images are drawn from if the user gives no prompts."""

DEFAULT_TEXTS = 4
"""The number of prompts of the dataset that are answered if the user gives none."""

LONGEST_SHOWN = 300
"""The most characters of an answer in the report."""


def sampling_of(config: ResolvedConfig, dataset: Dataset) -> Sampling:
    """Return the settings of the samples of a run.

    Without `sample_prompts`, the prompts are some that the dataset suggests or, if it suggests none, its first
    captions.
    """
    prompts = read_prompts(config.sample_prompts)
    if not prompts:
        prompts = spread(dataset.sample_prompts, DEFAULT_TEXTS)
    if not prompts:
        prompts = list(dict.fromkeys(dataset.captions))[:DEFAULT_PREVIEWS]
    width, height = (0, 0) if config.resolution is None else dataset.preview_size(config.resolution)
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
        max_new_tokens=config.max_new_tokens,
    )


class PreviewSamples:
    """Draws rounds of samples and saves them.

    Args:
        base_model: the base model that carries the adapters.
        sampling: the prompts and settings of the samples.
        files: the files of the run, which include the samples.
        best_effort: collects notes about samples that could not be drawn or saved.

    Attributes:
        rounds: the rounds of samples drawn so far, in order.
    """

    def __init__(self, base_model: BaseModel, sampling: Sampling, files: RunFiles, best_effort: BestEffort) -> None:
        self._base_model, self._sampling = base_model, sampling
        self._files, self._best_effort = files, best_effort
        self.rounds: list[Samples] = []
        self._steps: list[int] = []
        self._seconds = 0.0
        self._sampling_steps = 0

    def are_drawn(self, step: int) -> bool:
        """Return whether samples of the state after `step` steps have been drawn."""
        return step in self._steps

    @property
    def seconds_per_sampling_step(self) -> float | None:
        """The mean seconds per sampling step of one sample; None before the first sample."""
        return self._seconds / self._sampling_steps if self._sampling_steps else None

    def lines(self) -> list[str]:
        """Return the report lines that show the first and the last text for each prompt; empty for images."""
        if len(self.rounds) < 2:
            return []
        first, last = self.rounds[0], self.rounds[-1]
        if isinstance(first, Tensor) or isinstance(last, Tensor):
            return []
        begun = f"after step {self._steps[0]}" if self._steps[0] else "before the first step"
        lines = [f"Sample answers {begun} and after step {self._steps[-1]} (all are in {SAMPLES}/):"]
        for prompt, before, after in zip(self._sampling.prompts, first, last, strict=False):
            lines += [f"  {_shown(prompt)}", f"    before: {_shown(before)}", f"    after:  {_shown(after)}"]
        return lines

    def draw(self, adapters: Adapters, step: int) -> Image.Image | tuple[str, ...] | None:
        """Draw a round of samples with the adapters as they are after `step` steps, and save it.

        Returns:
            All samples of the round: images side by side in one, or a tuple of texts; None after an out-of-memory error
            (OOM), which is noted in the report.
        """

        def drawn() -> Samples:
            with adapters.without_dropout():
                return self._base_model.previewer.draw(self._sampling)

        started = time.monotonic()
        samples = self._base_model.memory.first_that_fits(twice(drawn)).result
        if samples is None:
            self._best_effort.note(
                f"There was not enough memory to draw samples after step {step}, so they were skipped."
            )
            return None
        self._seconds += time.monotonic() - started
        self._sampling_steps += len(samples) * self._sampling.steps
        self.rounds.append(samples)
        self._steps.append(step)
        with self._best_effort.writing("The samples"):
            self._files.write_samples(step, samples)
            if not isinstance(samples, Tensor):
                self._files.write_prompts(self._sampling.prompts)
        return side_by_side(samples) if isinstance(samples, Tensor) else samples

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs as plain values; the samples themselves are in files."""
        return {
            "steps": list(self._steps),
            "seconds": self._seconds,
            "sampling_steps": self._sampling_steps,
            "prompts": list(self._sampling.prompts),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`.

        Samples whose files are missing or have another size will be drawn again, and so will texts for other prompts.
        """
        self._seconds, self._sampling_steps = state["seconds"], state["sampling_steps"]
        same_prompts = state["prompts"] == list(self._sampling.prompts)
        found = {
            step: samples for step, samples in self._files.read_samples().items() if self._fits(samples, same_prompts)
        }
        self._steps = [step for step in state["steps"] if step in found]
        self.rounds[:] = [found[step] for step in self._steps]

    def _fits(self, samples: Samples, same_prompts: bool) -> bool:
        size = (self._sampling.height, self._sampling.width)
        return samples.shape[1:3] == size if isinstance(samples, Tensor) else same_prompts


def _shown(text: str) -> str:
    """Return a text on one line, cut if it is long."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_SHOWN else f"{line[:LONGEST_SHOWN]}…"
