"""A LoRA with another rank."""

from __future__ import annotations

import math

import torch

from ..errors import CrucibleError
from ..formats.delta import BIASES, delta_weight
from ..formats.lora_file import ALPHA, DORA_SCALE, LayerTensors
from ..formats.universal import Layers
from .merge import Merged, rank_too_low
from .refactor import dense_svd, factors_of, lora_of_matrix, rank_for_energy, thin_svd, truncated, weight_shape


@torch.no_grad()
def resize(lora: Layers, rank: int | None = None, energy: float | None = None) -> Merged:
    """A LoRA of the rank, or, layer by layer, of the smallest rank that keeps a share of the energy (the sum of squares
    of ΔW, up to 1). LoHa, LoKr and whole differences become LoRA.

    Raises:
        CrucibleError: a rank or an energy that is none, or a DoRA.
    """
    if rank is not None and rank < 1:
        raise rank_too_low(rank)
    if energy is not None and not 0 < energy <= 1:
        raise CrucibleError(
            f"The energy is {energy}, but it is the share of each layer that is kept, so it must be above 0 and at "
            "most 1. 0.95 is usual."
        )
    layers: dict[str, LayerTensors] = {}
    errors: dict[str, float] = {}
    squares = lost = 0.0
    for key, adapter in lora.layers.items():
        layers[key], square, error = _resized(key, adapter, rank, energy)
        if error is not None:
            errors[key] = error
        squares += square
        lost += square * (error or 0.0) ** 2
    total = math.sqrt(lost / squares) if squares else 0.0
    return Merged(Layers(layers, lora.dotted), errors, total, tuple(lora.leftover))


def _resized(
    key: str, adapter: LayerTensors, rank: int | None, energy: float | None
) -> tuple[LayerTensors, float, float | None]:
    """A layer, the square of ΔW's length, and the error as a share of the length: None where nothing was lost."""
    if DORA_SCALE in adapter:
        raise CrucibleError(
            f"{key} has a dora_scale: a DoRA of another rank is another DoRA, with a scale that depends on the base "
            "model. Merge it with that model instead (python -m trainer merge … --base MODEL --rank 16)."
        )
    rest = {suffix: tensor for suffix, tensor in adapter.items() if suffix in BIASES}
    weights = {suffix: tensor for suffix, tensor in adapter.items() if suffix not in BIASES}
    if not weights.keys() - {ALPHA, ".w_norm"}:
        return adapter, 0.0, None
    if (factors := factors_of(weights)) is not None:
        u, s, v = thin_svd(*factors)
        shape = weight_shape(weights)
    else:
        delta = delta_weight(weights, name=key)
        if delta.ndim < 2:
            return adapter, 0.0, None
        if energy is None:
            resized, square, error = lora_of_matrix(delta, rank or min(delta.flatten(1).shape))
            return rest | resized, square, error
        u, s, v = dense_svd(delta.flatten(1), None)
        shape = tuple(delta.shape)
    kept = rank or len(s) if energy is None else rank_for_energy(s, energy)
    resized, square, error = truncated(u, s, v, kept, shape)
    return rest | resized, square, error
