"""Training at a lower resolution than was asked for, when memory leaves no other way."""

from __future__ import annotations

from dataclasses import replace

from ..config import ResolvedConfig
from ..data.images.dataset import Dataset

LEAST = 384
"""Below it, models of 512 and more pixels learn little that is of use."""

STEP = 64
"""Resolutions are multiples of it."""


def next_lower(config: ResolvedConfig) -> int | None:
    """About three quarters of a config's resolution; None where that is too low, or not allowed."""
    lower = max(LEAST, config.resolution * 3 // 4 // STEP * STEP)
    return lower if config.allow_lower_resolution and lower < config.resolution else None


def limited(dataset: Dataset, resolution: int) -> Dataset:
    """A dataset that is trained at a resolution, and at no higher one beside."""
    settings = dataset.settings
    more = [str(one) for one in settings.resolutions(resolution)[1:] if one < resolution]
    lower = {"resolution": resolution, "extra_resolutions": ", ".join(more)}
    return replace(dataset, settings=settings.model_copy(update=lower))
