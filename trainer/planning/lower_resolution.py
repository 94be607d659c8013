"""The lower resolution that a run falls back to when nothing else makes it fit into memory."""

from __future__ import annotations

from ..config import ResolvedConfig

LEAST = 384
"""The lowest resolution, in pixels: below it, models of 512 and more pixels learn little that is useful."""

STEP = 64
"""Resolutions are multiples of this number of pixels."""


def next_lower(config: ResolvedConfig) -> int | None:
    """Return about three quarters of a config's resolution; None if that is too low or not allowed."""
    if config.resolution is None or not config.allow_lower_resolution:
        return None
    lower = max(LEAST, config.resolution * 3 // 4 // STEP * STEP)
    return lower if lower < config.resolution else None
