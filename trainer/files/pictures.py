"""Pictures between tensors and files."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_picture(pixels: Tensor) -> Image.Image:
    """(height, width, 3) in 0..1 to an RGB image, rounded as ComfyUI's Save Image does (down)."""
    return Image.fromarray((pixels * 255).clamp(0, 255).byte().cpu().numpy())


def side_by_side(pictures: Tensor) -> Image.Image:
    """(count, height, width, 3) in 0..1 to one RGB image, count * width wide."""
    return to_picture(pictures.permute(1, 0, 2, 3).flatten(1, 2))


def to_pixels(picture: Image.Image) -> Tensor:
    """An RGB image to (height, width, 3) float32 in 0..1."""
    return torch.from_numpy(np.array(picture, dtype=np.float32) / 255)
