"""Matrices as products of two thin ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..formats.delta import kind_of, scale_of, without_middle
from ..formats.lora_file import DOWN, MIDDLE, UP, LayerTensors, lora_layer
from ..seeding import global_seed

OVERSAMPLING = 16
"""More directions than asked for, for the randomized decomposition (Halko et al. 2011, arXiv:0909.4061)."""

POWER_ITERATIONS = 4


def factors_of(adapter: LayerTensors) -> tuple[Tensor, Tensor] | None:
    """A LoRA as (out, rank) and (rank, in · kernel), float32, whose product is ΔW; None for other methods."""
    if kind_of(adapter) != "lora":
        return None
    plain = without_middle(adapter)
    return scale_of(adapter) * plain[UP].float().flatten(1), plain[DOWN].float().flatten(1)


def thin_svd(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values and vectors of up @ down, exactly, without the product: U (out, r), S (r,), V (r, in)."""
    left, left_small = torch.linalg.qr(up)
    right, right_small = torch.linalg.qr(down.T)
    u, s, v = torch.linalg.svd(left_small @ right_small.T, full_matrices=False)
    return left @ u, s, v @ right.T


def dense_svd(matrix: Tensor, rank: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """The same of a matrix (out, in). Where only the first `rank` are asked for and these are few, by the randomized
    method, which is many times faster and of the same result to a fraction of a percent; from a seed of its own."""
    wanted = min(matrix.shape) if rank is None else rank + OVERSAMPLING
    if 4 * wanted >= min(matrix.shape):
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        return u, s, v
    with global_seed(0, matrix.device):
        u, s, v = torch.svd_lowrank(matrix, q=wanted, niter=POWER_ITERATIONS)
    return u, s, v.T


def rank_for_energy(singular_values: Tensor, energy: float) -> int:
    """The smallest rank that keeps this share of the sum of squares; at least 1."""
    squares = singular_values.double().square()
    if not squares.sum():
        return 1
    kept = squares.cumsum(0) / squares.sum()
    return min(int((kept < energy - 1e-12).sum()) + 1, len(kept))


def as_lora(u: Tensor, s: Tensor, v: Tensor, rank: int, shape: Sequence[int]) -> LayerTensors:
    """The first `rank` singular directions as a LoRA with alpha = rank, the values shared evenly by both factors.

    Args:
        shape: of the layer's weight: (out, in) or (out, in, kernel height, kernel width).
    """
    rank = min(rank, len(s))
    root = s[:rank].sqrt()
    return lora_of(u[:, :rank] * root, root[:, None] * v[:rank], shape)


def truncated(
    u: Tensor, s: Tensor, v: Tensor, rank: int, shape: Sequence[int]
) -> tuple[LayerTensors, float, float | None]:
    """`as_lora` of a whole decomposition, the square of ΔW's length, and the error as a share of the length: None where
    nothing was lost."""
    squares = s.double().square()
    square = float(squares.sum())
    error = None
    if rank < len(s):
        error = math.sqrt(float(squares[rank:].sum()) / square) if square else 0.0
    return as_lora(u, s, v, rank, shape), square, error


def lora_of(up: Tensor, down: Tensor, shape: Sequence[int]) -> LayerTensors:
    """A LoRA whose ΔW is up @ down, of a weight of this shape."""
    rank = up.shape[1]
    up, down = up.to("cpu"), down.to("cpu")
    return lora_layer(down.reshape(rank, *shape[1:]), up.reshape(len(up), rank, *[1] * (len(shape) - 2)), rank)


def lora_of_matrix(delta: Tensor, rank: int) -> tuple[LayerTensors, float, float | None]:
    """The best LoRA of a rank for a ΔW (out, in, …), the square of ΔW's length, and the error as a share of the length:
    None where nothing was lost."""
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
    """Of the layer's weight, from a LoRA."""
    down, middle = adapter[DOWN], adapter.get(MIDDLE)
    return (len(adapter[UP]), down.shape[1], *(down if middle is None else middle).shape[2:])
