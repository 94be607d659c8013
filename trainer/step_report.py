"""What is known of an optimizer step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psutil
import torch

RANGES = ("0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00")
"""Quarters of the noise schedule; 0 is no noise. A loss swings with its timestep, so errors compare within a range."""


@dataclass(frozen=True)
class StepReport:
    """What happened in an optimizer step.

    Attributes:
        step: counts from 1.
        loss: what was minimised.
        errors: mean squared error without any weighting, by range of the noise schedule; only ranges that occurred.
        learning_rates: by part of the LoRA.
        gradient_norm: before clipping.
        images: names of the images that were shown.
        seconds: that the step took.
        memory_gb: most memory of the GPU that torch has held so far; without a GPU, what the process holds now.
    """

    step: int
    loss: float
    errors: dict[str, float]
    learning_rates: dict[str, float]
    gradient_norm: float
    images: tuple[str, ...]
    seconds: float
    memory_gb: float


def errors_by_range(errors: Iterable[float], timesteps: Iterable[float]) -> dict[str, float]:
    """Mean of the errors in each range that occurs, by timesteps as shares of the schedule."""
    found: dict[str, list[float]] = {}
    for error, timestep in zip(errors, timesteps, strict=True):
        index = min(int(timestep * len(RANGES)), len(RANGES) - 1)
        found.setdefault(RANGES[index], []).append(error)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}


def memory_gb(device: torch.device) -> float:
    """Memory in use, in GB of 10^9 bytes; see `StepReport`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return float(psutil.Process().memory_info().rss / 1e9)
