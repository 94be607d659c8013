"""How alike pictures are, by what is left of them when they are very small: layout, shapes and colours.

Pictures are float (count, height, width, 3) in 0..1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 32
"""Of the small pictures, in pixels: noise and texture are gone, whatever the size of the pictures."""


def small(pictures: Tensor) -> Tensor:
    """(count, 3, SIDE, SIDE), by averaging."""
    return F.interpolate(pictures.permute(0, 3, 1, 2).float(), size=(SIDE, SIDE), mode="area")


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Mean absolute difference of each picture from its counterpart, (count,), 0 to 1."""
    return (small(one) - small(other)).abs().flatten(1).mean(1)


def mean_distance(pictures: Tensor) -> float:
    """Of all pairs of two and more pictures, as `distances`."""
    flat = small(pictures).flatten(1)
    return float(torch.pdist(flat, p=1).mean()) / flat.shape[1]


def likeness(pictures: Tensor, others: Tensor) -> Tensor:
    """Normalised cross-correlation (count, count of others): 1 for the same picture, whatever its brightness and
    contrast; 0 for pictures that have nothing in common, and for flat ones."""

    def normal(images: Tensor) -> Tensor:
        flat = small(images).flatten(1)
        return F.normalize(flat - flat.mean(1, keepdim=True), eps=1e-3)

    return torch.mm(normal(pictures), normal(others).T)
