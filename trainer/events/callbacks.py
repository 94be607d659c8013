"""The functions through which a run reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .start import RunStart
from .step import StepReport


@dataclass(frozen=True)
class Callbacks:
    """Functions that a run calls while it works. Each but `saved` may raise to stop the run, which then keeps what was
    trained.

    Attributes:
        preparing: called with (examples done, their total, what is being done).
        stepped: called after each step with (its report, the total number of steps).
        sampled: called with (the number of steps done, the total number of steps, the samples: images side by side in
            one, or a tuple with the text for each prompt).
        planned: called once everything is decided, before the first step.
        validated: called after each measurement with (the number of steps done, the error).
        saved: called after a checkpoint was written, with (the number of steps done, its folder).
    """

    preparing: Callable[[int, int, str], None] = lambda done, total, what: None
    stepped: Callable[[StepReport, int], None] = lambda report, steps: None
    sampled: Callable[[int, int, Image.Image | tuple[str, ...]], None] = lambda step, steps, samples: None
    planned: Callable[[RunStart], None] = lambda start: None
    validated: Callable[[int, float], None] = lambda step, error: None
    saved: Callable[[int, Path], None] = lambda step, folder: None
