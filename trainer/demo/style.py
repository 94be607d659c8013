"""The measurement of how much of the demo dataset's style, a thick black outline, an image shows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DARK, LIGHT = 0.2, 0.5
"""The brightest channel up to which a pixel counts as black, and from which on it counts as not black."""

SMALLEST_SHAPE = 0.1
"""The share of the image that a shape is assumed to fill at least, so that a stray dot scores next to nothing."""

BLACK_SHARE = 0.63
"""The average share of black in a shape in the dataset's style."""


def style_score(images: Any) -> NDArray[np.float64]:
    """Compute how much black outline the shapes in images have: about 0 for plain shapes, about 1 for the new style.

    The score is the share of black in whatever stands out from the background, divided by the same share in true
    images of the style. It therefore does not depend on the shape's position, size or colour.

    Args:
        images: array or tensor (N, H, W, 3) with values from 0 to 1.

    Returns:
        One score per image, (N,).

    Raises:
        ValueError: the images have another shape.
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
