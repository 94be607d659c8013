"""Resize LoRAs to another rank."""

from __future__ import annotations

import math

import torch

from ..errors import CrucibleError
from ..formats.delta import BIASES, delta_weight, kind_of, needs_base_weight
from ..formats.lora_file import ALPHA, RESHAPE, LayerTensors
from ..formats.universal import Layers
from .merge import Merged, rank_too_low
from .refactor import dense_svd, factors_of, lora_of_matrix, rank_for_energy, thin_svd, truncated, weight_shape


@torch.no_grad()
def resize(lora: Layers, rank: int | None = None, energy: float | None = None) -> Merged:
    """Resize a LoRA to a rank, or each layer to the smallest rank that keeps a share of its energy.

    LoHa, LoKr and full differences become LoRA.

    Args:
        lora: the layers to resize.
        rank: the new rank of all layers; None if `energy` decides it.
        energy: the share of the sum of squares of ΔW to keep, above 0 and at most 1.

    Raises:
        CrucibleError: the rank or the energy is out of range, or a layer is a DoRA.
    """
    if rank is not None and rank < 1:
        raise rank_too_low(rank)
    if energy is not None and not 0 < energy <= 1:
        raise CrucibleError(
            f"The energy is {energy}, but it is the share of each layer to keep, so it must be above 0 and at most 1. "
            "0.95 is usual."
        )
    layers: dict[str, LayerTensors] = {}
    errors: dict[str, float] = {}
    squares = lost = 0.0
    for key, adapter in lora.layers.items():
        if key in lora.dotted and kind_of(adapter) == "diff":  # perhaps a parameter that is no layer's weight
            layers[key] = adapter
            continue
        layers[key], square, error = _resized(key, adapter, rank, energy)
        if error is not None:
            errors[key] = error
        squares += square
        lost += square * (error or 0.0) ** 2
    total = math.sqrt(lost / squares) if squares else 0.0
    return Merged(Layers(layers, lora.dotted), errors, total)


def _resized(
    key: str, adapter: LayerTensors, rank: int | None, energy: float | None
) -> tuple[LayerTensors, float, float | None]:
    """Return the resized layer, the squared norm of its ΔW, and the relative error (None if nothing was lost)."""
    if needs_base_weight(adapter):
        raise CrucibleError(
            f"{key} is a DoRA, whose scale depends on the base model and would be wrong at "
            "another rank. Merge it with that model instead (python -m trainer merge … --base MODEL --rank 16)."
        )
    rest = {suffix: tensor for suffix, tensor in adapter.items() if suffix in (*BIASES, RESHAPE)}
    weights = {suffix: tensor for suffix, tensor in adapter.items() if suffix not in rest}
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
