"""The similarity of images, measured on very small versions of them, which only keep layout, shapes and colours.

Images are float tensors (count, height, width, 3) with values from 0 to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 32
"""The side of the small images in pixels; noise and texture are gone at this size."""


def small(pictures: Tensor) -> Tensor:
    """Shrink images to (count, 3, SIDE, SIDE) by averaging."""
    return F.interpolate(pictures.permute(0, 3, 1, 2).float(), size=(SIDE, SIDE), mode="area")


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean absolute difference of each image from its counterpart, (count,), from 0 to 1."""
    return (small(one) - small(other)).abs().flatten(1).mean(1)


def mean_distance(pictures: Tensor) -> float:
    """Return the mean of `distances` over all pairs of at least two images."""
    flat = small(pictures).flatten(1)
    return float(torch.pdist(flat, p=1).mean()) / flat.shape[1]


def likeness(pictures: Tensor, others: Tensor) -> Tensor:
    """Return the normalised cross-correlation of each image with each of the others, (count, count of others).

    It is 1 for the same image, whatever its brightness and contrast, and 0 for unrelated images and for those of a
    single colour.
    """

    def normal(images: Tensor) -> Tensor:
        flat = small(images).flatten(1)
        return F.normalize(flat - flat.mean(1, keepdim=True), eps=1e-3)

    return torch.mm(normal(pictures), normal(others).T)
