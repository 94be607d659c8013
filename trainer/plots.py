"""A picture of the loss."""

from __future__ import annotations

from pathlib import Path

SMOOTHING = 0.95
"""Share of the past in the smoothed curve: single steps swing with their timesteps."""


def smoothed(losses: list[float]) -> list[float]:
    """Exponential moving average, corrected for its start (Kingma & Ba 2015, arXiv:1412.6980, section 3)."""
    average, weight, curve = 0.0, 0.0, []
    for loss in losses:
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        curve.append(average / weight)
    return curve


def save_loss_plot(losses: list[float], path: Path) -> None:
    """Write a PNG with the loss of each step and its smoothed curve."""
    # Without pyplot: it keeps figures alive and looks for a screen.
    from matplotlib.figure import Figure

    steps = range(1, len(losses) + 1)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, label="each step")
    axes.plot(steps, smoothed(losses), color="tab:blue", label="smoothed")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend()
    figure.savefig(path, dpi=120)
