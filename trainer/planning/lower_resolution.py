"""Training at a lower resolution than requested, if it does not fit into memory otherwise."""

from __future__ import annotations

from dataclasses import replace

from ..config import ResolvedConfig
from ..data.images.dataset import Dataset

LEAST = 384
"""The lowest resolution to fall back to; below it, models made for 512 pixels or more learn little of use."""

STEP = 64
"""The number of pixels that lowered resolutions are multiples of."""


def next_lower(config: ResolvedConfig) -> int | None:
    """Return about three quarters of a config's resolution, or None if that is too low or not allowed."""
    lower = max(LEAST, config.resolution * 3 // 4 // STEP * STEP)
    return lower if config.allow_lower_resolution and lower < config.resolution else None


def limited(dataset: Dataset, resolution: int) -> Dataset:
    """Return a dataset that is trained at the given resolution, and at no extra resolution above it."""
    settings = dataset.settings
    more = [str(one) for one in settings.resolutions(resolution)[1:] if one < resolution]
    lower = {"resolution": resolution, "extra_resolutions": ", ".join(more)}
    return replace(dataset, settings=settings.model_copy(update=lower))
