"""The plot of a run's loss and learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from ..evaluation.validation import Round
from ..files.atomic import write_whole
from .log import read_log

SMOOTHING = 0.95
"""The weight of earlier steps in the smoothed curve; the loss of single steps varies with their timesteps."""


def smoothed(losses: list[float]) -> list[float]:
    """Compute an exponential moving average with bias correction (Kingma & Ba 2015, arXiv:1412.6980, section 3)."""
    average, weight, curve = 0.0, 0.0, []
    for loss in losses:
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        curve.append(average / weight)
    return curve


def can_plot() -> bool:
    """Return whether matplotlib is installed; ComfyUI does not install it."""
    return find_spec("matplotlib") is not None


def save_training_plot(log: Path, path: Path, unit: str, rounds: Sequence[Round] = ()) -> None:
    """Write a PNG with the loss of each step, its smoothed curve, and the learning rates.

    Args:
        log: the log.jsonl of a run, with at least one complete line.
        path: the PNG file.
        unit: the word for an example in the singular.
        rounds: the validation rounds, drawn as points.

    Raises:
        CrucibleError: the disk is full, or the system reports another error.
    """
    # Not with pyplot, which keeps figures alive and looks for a display.
    from matplotlib.figure import Figure

    steps = read_log(log)
    numbers = [step["step"] for step in steps]
    losses = [step["loss"] for step in steps]
    figure = Figure(figsize=(8, 6), layout="constrained")
    loss_axes, rate_axes = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    loss_axes.plot(numbers, losses, color="tab:blue", alpha=0.25, label="each step")
    loss_axes.plot(numbers, smoothed(losses), color="tab:blue", label="smoothed")
    for label, colour, errors in (
        (f"training {unit}s", "tab:green", [(one.step, one.training) for one in rounds]),
        (f"validation {unit}s", "tab:red", [(one.step, one.held_out) for one in rounds if one.held_out is not None]),
    ):
        if errors:
            loss_axes.plot(*zip(*errors, strict=True), color=colour, marker="o", markersize=3, label=label)
    loss_axes.set_ylabel("loss")
    loss_axes.legend()
    for name in steps[0]["learning_rates"]:
        rate_axes.plot(numbers, [step["learning_rates"][name] for step in steps], label=name)
    rate_axes.set_ylabel("learning rate")
    rate_axes.set_xlabel("step")
    if len(steps[0]["learning_rates"]) > 1:
        rate_axes.legend()
    content = BytesIO()
    figure.savefig(content, dpi=120, format="png")
    write_whole(path, content.getbuffer(), what="The plot")
