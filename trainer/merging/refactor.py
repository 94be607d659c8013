"""Factor matrices into products of two thin ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..formats.delta import kind_of, scale_of, without_middle
from ..formats.lora_file import DOWN, MIDDLE, UP, LayerTensors, lora_layer
from ..seeding import global_seed

OVERSAMPLING = 16
"""The number of directions that the randomized decomposition computes in addition to those asked for (Halko et al.
2011, arXiv:0909.4061)."""

POWER_ITERATIONS = 4


def factors_of(adapter: LayerTensors) -> tuple[Tensor, Tensor] | None:
    """Return a LoRA as two factors whose product is ΔW: (out, rank) and (rank, in · kernel), float32.

    Returns None for other methods.
    """
    if kind_of(adapter) != "lora":
        return None
    plain = without_middle(adapter)
    return scale_of(adapter) * plain[UP].float().flatten(1), plain[DOWN].float().flatten(1)


def thin_svd(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the exact SVD of up @ down without forming the product: U (out, r), S (r,), V (r, in)."""
    left, left_small = torch.linalg.qr(up)
    right, right_small = torch.linalg.qr(down.T)
    u, s, v = torch.linalg.svd(left_small @ right_small.T, full_matrices=False)
    return left @ u, s, v @ right.T


def dense_svd(matrix: Tensor, rank: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the SVD of a matrix (out, in): U (out, r), S (r,), V (r, in).

    If only the first `rank` directions are asked for and these are few, the randomized method is used, which is many
    times faster and as good to a fraction of a percent. It has a seed of its own, so results are repeatable.
    """
    wanted = min(matrix.shape) if rank is None else rank + OVERSAMPLING
    if 4 * wanted >= min(matrix.shape):
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        return u, s, v
    with global_seed(0, matrix.device):
        u, s, v = torch.svd_lowrank(matrix, q=wanted, niter=POWER_ITERATIONS)
    return u, s, v.T


def rank_for_energy(singular_values: Tensor, energy: float) -> int:
    """Return the smallest rank that keeps this share of the sum of squared singular values; at least 1."""
    squares = singular_values.double().square()
    if not squares.sum():
        return 1
    kept = squares.cumsum(0) / squares.sum()
    return min(int((kept < energy - 1e-12).sum()) + 1, len(kept))


def as_lora(u: Tensor, s: Tensor, v: Tensor, rank: int, shape: Sequence[int]) -> LayerTensors:
    """Return the first `rank` singular directions as a LoRA with alpha = rank.

    Each factor gets the square roots of the singular values.

    Args:
        u, s, v: the SVD, as `thin_svd` and `dense_svd` return it.
        rank: the number of directions to keep.
        shape: the shape of the layer's weight: (out, in) or (out, in, kernel height, kernel width).
    """
    rank = min(rank, len(s))
    root = s[:rank].sqrt()
    return lora_of(u[:, :rank] * root, root[:, None] * v[:rank], shape)


def truncated(
    u: Tensor, s: Tensor, v: Tensor, rank: int, shape: Sequence[int]
) -> tuple[LayerTensors, float, float | None]:
    """Truncate the SVD of a ΔW to a rank.

    Returns:
        the LoRA as from `as_lora`, the squared norm of ΔW, and the relative error (None if nothing was lost).
    """
    squares = s.double().square()
    square = float(squares.sum())
    error = None
    if rank < len(s):
        error = math.sqrt(float(squares[rank:].sum()) / square) if square else 0.0
    return as_lora(u, s, v, rank, shape), square, error


def lora_of(up: Tensor, down: Tensor, shape: Sequence[int]) -> LayerTensors:
    """Return a LoRA with ΔW = up @ down, for a weight of this shape."""
    rank = up.shape[1]
    up, down = up.to("cpu"), down.to("cpu")
    return lora_layer(down.reshape(rank, *shape[1:]), up.reshape(len(up), rank, *[1] * (len(shape) - 2)), rank)


def lora_of_matrix(delta: Tensor, rank: int) -> tuple[LayerTensors, float, float | None]:
    """Approximate a ΔW (out, in, …) by the best LoRA of a rank.

    Returns:
        the LoRA, the squared norm of ΔW, and the relative error (None if nothing was lost).
    """
    flat = delta.flatten(1)
    square = float(flat.double().square().sum())
    rank = min(rank, *flat.shape)
    u, s, v = dense_svd(flat, rank)
    error = None
    if rank < min(flat.shape):
        lost = flat - (u[:, :rank] * s[:rank]) @ v[:rank]
        error = math.sqrt(float(lost.double().square().sum()) / square) if square else 0.0
    return as_lora(u, s, v, rank, delta.shape), square, error


def weight_shape(adapter: LayerTensors) -> tuple[int, ...]:
    """Return the shape of a layer's weight, from a LoRA on the layer."""
    down, middle = adapter[DOWN], adapter.get(MIDDLE)
    return (len(adapter[UP]), down.shape[1], *(down if middle is None else middle).shape[2:])
