"""Trackers, which show a run while it trains: TensorBoard and Weights & Biases, written through accelerate."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from torch import Tensor

from ..config import ResolvedConfig
from ..config.run_settings import AUTO, TRACKERS
from ..events.step import StepReport
from ..models.previews import Samples
from .best_effort import BestEffort
from .paths import RunFiles

PROJECT = "lora-crucible"
"""The project that runs belong to on Weights & Biases, unless the variable WANDB_PROJECT names another."""


class Trackers:
    """The trackers of a run. None of them can stop it: one that fails is noted in the report and left alone from then.

    Args:
        config: the settings of the run, which name the trackers.
        files: the files of the run.
        best_effort: collects notes about trackers that failed.
        steps: the number of steps done; what TensorBoard has about later ones is hidden, as they are trained again.
        writes: whether this process writes the files of the run; otherwise there are no trackers.
    """

    def __init__(
        self, config: ResolvedConfig, files: RunFiles, best_effort: BestEffort, steps: int = 0, writes: bool = True
    ) -> None:
        self._best_effort, self._open = best_effort, dict[str, Any]()
        for name in _named(config.report_to) if writes else ():
            with best_effort.writing(f"The record for {TRACKERS[name]}"):
                self._open[name] = _started(name, config, files, steps)

    def step(self, report: StepReport) -> None:
        """Send the numbers of a step."""
        self._each(lambda tracker: tracker.log(_curves(report), step=report.step))

    def measured(self, step: int, error: float) -> None:
        """Send the error that was measured after a step."""
        self._each(lambda tracker: tracker.log({"validation/error": error}, step=step))

    def samples(self, step: int, samples: Samples, prompts: Sequence[str]) -> None:
        """Send a round of samples."""
        if not isinstance(samples, Tensor):
            texts = {
                f"samples/{number}": f"{prompt}\n\n{text}"
                for number, (prompt, text) in enumerate(zip(prompts, samples, strict=False), start=1)
            }
            self._each(lambda tracker: tracker.log(texts, step=step))
            return
        pictures = (samples.clamp(0, 1) * 255).round().numpy().astype(np.uint8)

        def send(tracker: Any) -> None:
            form = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"samples": pictures}, step=step, **form)

        self._each(send)

    def close(self) -> None:
        """Close the trackers."""
        self._each(lambda tracker: tracker.finish())

    def _each(self, action: Callable[[Any], None]) -> None:
        """Do something with each tracker that has not failed."""
        for name, tracker in list(self._open.items()):
            del self._open[name]
            with self._best_effort.writing(f"The record for {TRACKERS[name]}"):
                action(tracker)
                self._open[name] = tracker


def _started(name: str, config: ResolvedConfig, files: RunFiles, steps: int) -> Any:
    """Start a tracker, and give it the settings of the run."""
    # accelerate says what it does through a logger that needs to know which process of how many this one is.
    from accelerate import PartialState
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    PartialState(cpu=True)  # so that it neither looks for a card nor, if the launch names it, for DeepSpeed
    settings = config.model_dump(mode="json", exclude_none=True)
    if name == "tensorboard":
        tracker: Any = TensorBoardTracker("", files.folder, purge_step=steps + 1)
        _start(tracker)
        # Its own form of settings is a new folder with a file of its own at each start.
        tracker.log({"settings": _as_table(settings)}, step=steps)
        return tracker
    identity = {"name": files.name, "id": f"{files.name}-{files.session}", "resume": "allow"}
    tracker = WandBTracker(os.environ.get("WANDB_PROJECT", PROJECT), dir=str(files.folder), **identity)
    _start(tracker)
    tracker.store_init_configuration(settings)
    return tracker


def _start(tracker: Any) -> None:
    """Start a tracker; older versions of accelerate have already done so."""
    getattr(tracker, "start", lambda: None)()


def _named(report_to: str) -> list[str]:
    """Return the trackers that a setting names."""
    if report_to == AUTO:
        return ["tensorboard"] if find_spec("tensorboard") is not None else []
    return [name for name in TRACKERS if name in report_to.split(", ")]


def _curves(report: StepReport) -> dict[str, float]:
    """Return the numbers of a step by the names of their curves."""
    return {
        "loss": report.loss,
        "gradient_norm": report.gradient_norm,
        "seconds": report.seconds,
        "memory_gb": report.memory_gb,
        **{f"error/{name}": value for name, value in report.errors.items()},
        **{f"learning_rate/{name}": value for name, value in report.learning_rates.items()},
    }


def _as_table(settings: Mapping[str, Any]) -> str:
    """Return settings as a table in Markdown, which TensorBoard shows."""
    cells = {name: str(value).replace("|", "\\|").replace("\n", " ") for name, value in settings.items()}
    return "\n".join(["| setting | value |", "|---|---|", *(f"| {name} | {cell} |" for name, cell in cells.items())])
