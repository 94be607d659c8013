"""Change the rank or alpha of LoRA layers while keeping their effect as far as the rank allows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..formats.delta import scale_of
from ..formats.lora_file import ALPHA, DOWN, UP, LayerTensors
from ..seeding import generator
from .refactor import thin_svd


@torch.no_grad()
def resized(
    layers: Mapping[str, LayerTensors], rank: int | None, alpha: float | None, rank_stabilized: bool, seed: int
) -> tuple[dict[str, LayerTensors], float | None]:
    """Give LoRA and DoRA layers this rank and alpha; other layers stay unchanged.

    A lower rank keeps the largest singular values of ΔW. A higher one adds directions that have no effect yet but can
    learn one: random in `DOWN`, zero in `UP`.

    Args:
        layers: the layers by key.
        rank: the new rank; None keeps each layer's rank.
        alpha: the new alpha; None keeps each layer's ratio of alpha to rank.
        rank_stabilized: whether alpha is divided by the square root of the rank instead of the rank.
        seed: the seed of the random directions.

    Returns:
        the layers, and the norm of what was lost, as a share of the norm of all ΔW; None if no rank was changed.
    """
    result = dict(layers)
    before = lost = 0.0
    changed = False
    for key, layer in layers.items():
        if DOWN not in layer:
            continue
        old = len(layer[DOWN])
        new = rank or old
        scale = scale_of(layer) if alpha is None else alpha / (math.sqrt(new) if rank_stabilized else new)
        if new == old and math.isclose(scale, scale_of(layer), rel_tol=1e-3):
            continue
        down, up = layer[DOWN].flatten(1), layer[UP].flatten(1) * (scale_of(layer) / scale if scale else 1.0)
        if new < old:
            down, up, values = _truncated(down, up, new)
            before += float(values.square().sum()) * scale**2
            lost += float(values[new:].square().sum()) * scale**2
        elif new > old:
            more = torch.empty(new - old, down.shape[1])
            nn.init.kaiming_uniform_(more, a=math.sqrt(5), generator=generator(seed, "resize", key))
            down, up = torch.cat([down, more]), torch.cat([up, torch.zeros(len(up), new - old)], dim=1)
        changed |= new != old
        result[key] = layer | {
            DOWN: down.reshape(new, *layer[DOWN].shape[1:]),
            UP: up.reshape(len(up), new, *layer[UP].shape[2:]),
            ALPHA: torch.tensor(scale * new),
        }
    share = math.sqrt(lost / before) if before else 0.0
    return result, share if changed else None


def _truncated(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best factors of a lower rank for up @ down (Eckart and Young 1936), and all its singular values."""
    u, values, v = thin_svd(up, down)
    root = values.sqrt()
    if (missing := rank - len(values)) > 0:  # the layer itself is smaller than the rank
        root = torch.cat([root, torch.zeros(missing)])
        u = torch.cat([u, torch.zeros(len(u), missing)], dim=1)
        v = torch.cat([v, torch.zeros(missing, v.shape[1])])
    return root[:rank, None] * v[:rank], u[:, :rank] * root[:rank], values
