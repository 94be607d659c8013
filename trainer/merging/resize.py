"""A LoRA with another rank."""

from __future__ import annotations

import math

import torch

from ..errors import CrucibleError
from ..formats.delta import delta_weight
from ..formats.lora_file import ALPHA, DORA_SCALE, LayerTensors
from ..formats.universal import Layers
from .merge import Merged
from .refactor import as_lora, dense_svd, factors_of, rank_for_energy, thin_svd, weight_shape

_BIASES = (".diff_b", ".b_norm")


@torch.no_grad()
def resize(lora: Layers, rank: int | None = None, energy: float | None = None) -> Merged:
    """A LoRA of the rank, or, layer by layer, of the smallest rank that keeps a share of the energy (the sum of squares
    of ΔW, up to 1). LoHa, LoKr and whole differences become LoRA.

    Raises:
        CrucibleError: a rank or an energy that is none, or a DoRA.
    """
    if rank is not None and rank < 1:
        raise CrucibleError(f"The rank is {rank}, and must be at least 1.")
    if energy is not None and not 0 < energy <= 1:
        raise CrucibleError(f"The energy is {energy}, and must be above 0 and at most 1: the share that is kept.")
    layers: dict[str, LayerTensors] = {}
    errors: dict[str, float] = {}
    squares = lost = 0.0
    for key, adapter in lora.layers.items():
        if DORA_SCALE in adapter:
            raise CrucibleError(
                f"{key} has a dora_scale: a DoRA of another rank is another DoRA, with a scale that depends on the "
                "base model. Merge it with that model instead (python -m trainer merge … --base MODEL --rank 16)."
            )
        rest = {suffix: tensor for suffix, tensor in adapter.items() if suffix in _BIASES}
        if not adapter.keys() - rest.keys() - {ALPHA}:
            layers[key] = rest
            continue
        if (factors := factors_of({suffix: adapter[suffix] for suffix in adapter.keys() - rest.keys()})) is not None:
            u, s, v = thin_svd(*factors)
            shape = weight_shape(adapter)
        else:
            delta = delta_weight(adapter)
            if delta.ndim < 2:
                layers[key] = adapter
                continue
            u, s, v = dense_svd(delta.flatten(1), None)
            shape = tuple(delta.shape)
        kept = len(s) if rank is None else rank
        if energy is not None:
            kept = min(kept, rank_for_energy(s, energy))
        layers[key] = rest | as_lora(u, s, v, kept, shape)
        square, missing = float(s.double().square().sum()), float(s[kept:].double().square().sum())
        if kept < len(s):
            errors[key] = math.sqrt(missing / square) if square else 0.0
        squares += square
        lost += missing
    return Merged(Layers(layers, lora.dotted), errors, math.sqrt(lost / squares) if squares else 0.0)
