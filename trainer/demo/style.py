"""Measures how much of the demo dataset's style, a thick black outline, a picture shows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DARK, LIGHT = 0.2, 0.5
"""A pixel whose brightest channel is at most DARK counts as black, at least LIGHT as not black."""

SMALLEST_SHAPE = 0.1
"""The shape is taken to fill at least this part of the picture, so that a stray dot scores nothing."""

BLACK_SHARE = 0.63
"""The black part of a shape in the dataset's style, on average."""


def style_score(images: Any) -> NDArray[np.float64]:
    """How black-outlined the shapes in the pictures are: about 0 for plain ones, about 1 for the new style.

    The score is the black part of whatever stands out from the background, divided by what it is for true
    pictures of the style; so it does not depend on where the shape lies, or on its size and colour.

    Args:
        images: array or tensor (N, H, W, 3), values 0 to 1.

    Returns:
        One score per picture, (N,).
    """
    pixels = np.asarray(images.cpu() if hasattr(images, "cpu") else images, dtype=np.float64)
    if pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(f"images must be (N, H, W, 3), got {pixels.shape}")
    border = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1)
    background = np.median(border, axis=1)[:, None, None]
    shape = (np.abs(pixels - background).max(axis=-1) > 0.2).mean(axis=(1, 2))
    black = np.clip((LIGHT - pixels.max(axis=-1)) / (LIGHT - DARK), 0, 1).mean(axis=(1, 2))
    score: NDArray[np.float64] = black / np.maximum(shape, SMALLEST_SHAPE) / BLACK_SHARE
    return score
