"""Conversion between tensors of pixels and PIL images."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_picture(pixels: Tensor) -> Image.Image:
    """Convert a tensor (height, width, 3) in 0..1 to an RGB image, rounding down as ComfyUI's Save Image does."""
    return Image.fromarray((pixels * 255).clamp(0, 255).byte().cpu().numpy())


def side_by_side(pictures: Tensor) -> Image.Image:
    """Convert a tensor (count, height, width, 3) in 0..1 to one RGB image, count * width pixels wide."""
    return to_picture(pictures.permute(1, 0, 2, 3).flatten(1, 2))


def to_pixels(picture: Image.Image) -> Tensor:
    """Convert an RGB image to a float32 tensor (height, width, 3) in 0..1."""
    return torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
