"""How a run talks to whoever started it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from .step import StepReport


@dataclass(frozen=True)
class Callbacks:
    """Functions that a run calls while it works. Each may raise to stop the run, which then keeps what was trained.

    Attributes:
        preparing: called with (examples done, how many there are, what is done with them).
        stepped: called after each step with (its report, how many steps there are).
        sampled: called with (the step that was reached, how many there are, the samples side by
            side: a picture or a text).
    """

    preparing: Callable[[int, int, str], None] = lambda done, total, what: None
    stepped: Callable[[StepReport, int], None] = lambda report, steps: None
    sampled: Callable[[int, int, Image.Image | str], None] = lambda step, steps, picture: None
