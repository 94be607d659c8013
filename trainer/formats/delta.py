"""Compute the change that an adapter makes to the weight of its layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from ..errors import CrucibleError
from .lora_file import ALPHA, BIAS, DORA_SCALE, DOWN, MAGNITUDE, MIDDLE, RESHAPE, SET, UP, LayerTensors

Kind = Literal["lora", "dora", "loha", "lokr", "diff", "other"]

BIASES = (BIAS, ".b_norm")
"""Suffixes of tensors that are added to a layer's bias."""

_DIFFERENCES = {".diff", ".w_norm", *BIASES}


def kind_of(adapter: Iterable[str]) -> Kind:
    """Return the method of the adapter that has these suffixes (as in memory); "other" for an unknown or mixed one."""
    suffixes = set(adapter)
    kind: Kind = "other"
    if {DOWN, UP} <= suffixes:
        kind = "dora" if suffixes & {DORA_SCALE, MAGNITUDE} else "lora"
        suffixes -= {DOWN, UP, MIDDLE, ALPHA, DORA_SCALE, MAGNITUDE, RESHAPE}
    elif ".hada_w1_a" in suffixes:
        kind, suffixes = "loha", {suffix for suffix in suffixes if not suffix.startswith(".hada_")} - {ALPHA}
    elif suffixes & {".lokr_w1", ".lokr_w1_a"}:
        kind, suffixes = "lokr", {suffix for suffix in suffixes if not suffix.startswith(".lokr_")} - {ALPHA}
    elif suffixes & _DIFFERENCES:
        return "diff" if suffixes <= {*_DIFFERENCES, ALPHA} else "other"
    return kind if suffixes <= set(BIASES) else "other"


_TITLES = {
    "lora": "LoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
    "diff": "full differences",
}
_OTHERS = (
    (SET, "whole weights that replace the model's (set_weight)"),
    (".a1.weight", "GLoRA"),
    (".oft_", "OFT or BOFT"),
    (".scalar", "LyCORIS with a separate scalar"),
)


def method_of(adapter: Iterable[str]) -> str:
    """Return the name of the method of the adapter with these suffixes, as shown to users."""
    suffixes = set(adapter)
    if suffixes <= set(BIASES):
        return "bias differences"
    kind = kind_of(suffixes)
    if kind == "dora":
        return "DoRA in PEFT's form" if MAGNITUDE in suffixes else "DoRA"
    if kind != "other":
        return _TITLES[kind]
    if DORA_SCALE in suffixes and (rest := kind_of(suffixes - {DORA_SCALE})) != "other":
        return f"{_TITLES[rest]} with DoRA"
    found = next((name for start, name in _OTHERS if any(suffix.startswith(start) for suffix in suffixes)), "")
    return found or f"an unknown method ({', '.join(sorted(suffixes))})"


def scale_of(adapter: LayerTensors) -> float:
    """Return alpha / rank, as ComfyUI and kohya's tools apply it.

    It is 1 without an alpha, or if both LoKr matrices are stored whole.
    """
    rank = rank_of(adapter)
    if ALPHA not in adapter or rank is None:
        return 1.0
    return float(adapter[ALPHA]) / rank


def rank_of(adapter: LayerTensors) -> int | None:
    """Return the rank of an adapter; None if it has none: a full difference, or a LoKr of two whole matrices."""
    for suffix in (DOWN, ".hada_w1_b", ".lokr_w2_b", ".lokr_w1_b"):
        if suffix in adapter:
            return adapter[suffix].shape[0]
    return None


def delta_weight(adapter: LayerTensors, base_weight: Tensor | None = None, name: str = "A layer") -> Tensor:
    """Compute ΔW in float32, in the shape of the layer's weight.

    LoRA: alpha / rank · up @ down (arXiv:2106.09685), with a middle factor for convolutions in Tucker form. LoHa:
    (w1_a w1_b) ∘ (w2_a w2_b) (arXiv:2108.06098). LoKr: w1 ⊗ w2 (arXiv:2212.10650, arXiv:2309.14859). DoRA:
    dora_scale · (W + ΔW) / norm - W (arXiv:2402.09353), where norm is the norm of each of W's outputs, as the programs
    that read such files have it, or of each of (W + ΔW)'s inputs if dora_scale has that shape.

    Args:
        adapter: the layer's tensors, by suffix in memory.
        base_weight: W; required for DoRA.
        name: the layer and its LoRA, as named in error messages.

    Returns:
        (out, in) or (out, in, kernel height, kernel width); for LoHa and LoKr possibly flattened to (out, in · kernel).

    Raises:
        CrucibleError: a DoRA without a base weight or with one of a different size, or an unknown method.
    """
    if kind_of(adapter.keys() - {DORA_SCALE, MAGNITUDE}) == "other":
        raise CrucibleError(
            f"What {name} does cannot be computed here, because its method is {method_of(adapter)}, so it cannot be "
            "merged or resized. LoRA, DoRA, LoHa, LoKr and full differences can. Use the file as it is in Load LoRA, "
            "or leave it out."
        )
    difference = _without_magnitude(adapter)
    magnitude = adapter.get(DORA_SCALE, adapter.get(MAGNITUDE))
    if magnitude is None:
        return difference
    if base_weight is None or base_weight.numel() != difference.numel():
        raise CrucibleError(
            f"{name} is a DoRA, which rescales the base model's own weight, so its effect cannot be computed without "
            f"that weight, and {'there is none' if base_weight is None else 'the one given has a different size'}. "
            "Connect `model`, the base model that the DoRA was made for, and `clip` for its text encoders (on the "
            "command line: --base), or leave it out."
        )
    weight = base_weight.float()
    difference = difference.reshape(weight.shape)
    changed = weight + difference
    if MAGNITUDE in adapter:
        return peft_dora(magnitude, changed) - weight
    if magnitude.shape[0] == weight.shape[0]:
        norm = torch.linalg.vector_norm(weight.flatten(1), dim=1)
        shape = (-1, *[1] * (weight.ndim - 1))
    else:
        norm = torch.linalg.vector_norm(changed.transpose(0, 1).flatten(1), dim=1)
        shape = (1, -1, *[1] * (weight.ndim - 2))
    ratio = magnitude.float().flatten() / (norm + torch.finfo(torch.float32).eps)
    return ratio.view(shape) * changed - weight


def changes_nothing(adapter: LayerTensors) -> bool:
    """Return whether an adapter consists of differences that are all zero, as extracted files have them for norms."""
    return adapter.keys() <= _DIFFERENCES and not any(tensor.any() for tensor in adapter.values())


def peft_dora(magnitude: Tensor, changed: Tensor) -> Tensor:
    """Return a weight with the norm of each output scaled to its magnitude, as PEFT computes DoRA.

    Args:
        magnitude: (out,); rows in which it is NaN stay unchanged.
        changed: the weight with the LoRA added, (out, in, …), float32.
    """
    norm = torch.linalg.vector_norm(changed.flatten(1), dim=1)
    ratio = magnitude.float().flatten() / norm.clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where(ratio.isnan(), 1.0, ratio).view(-1, *[1] * (changed.ndim - 1)) * changed


def needs_base_weight(adapter: Iterable[str]) -> bool:
    """Return whether the effect of an adapter depends on the base model's weight."""
    return bool({DORA_SCALE, MAGNITUDE} & set(adapter))


def without_middle(adapter: LayerTensors) -> LayerTensors:
    """Return a LoRA with its middle factor, if it has one, multiplied into `DOWN`."""
    if MIDDLE not in adapter:
        return adapter
    down, middle = adapter[DOWN], adapter[MIDDLE]
    whole = torch.einsum("rs...,si->ri...", middle.float(), down.float().flatten(1))
    return {suffix: tensor for suffix, tensor in adapter.items() if suffix != MIDDLE} | {DOWN: whole.to(down.dtype)}


def _without_magnitude(adapter: LayerTensors) -> Tensor:
    part = {suffix: tensor.float() for suffix, tensor in adapter.items()}
    scale = scale_of(adapter)
    if DOWN in part:
        whole = without_middle(part)
        down, up = whole[DOWN], whole[UP]
        return scale * (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])
    if ".hada_w1_a" in part:
        return scale * (_half(part, 1) * _half(part, 2))
    if ".lokr_w1" in part or ".lokr_w1_a" in part:
        first, second = _kronecker_factor(part, 1), _kronecker_factor(part, 2)
        return scale * torch.kron(first.reshape(*first.shape, *[1] * (second.ndim - 2)), second.contiguous())
    return part[".diff"] if ".diff" in part else part[".w_norm"]


def _half(part: dict[str, Tensor], number: int) -> Tensor:
    a, b = part[f".hada_w{number}_a"], part[f".hada_w{number}_b"]
    if (middle := part.get(f".hada_t{number}")) is not None:  # (rank, rank, kernel …), a (rank, out), b (rank, in)
        return torch.einsum("ij...,jr,ip->pr...", middle, b, a)
    return a @ b


def _kronecker_factor(part: dict[str, Tensor], number: int) -> Tensor:
    if (whole := part.get(f".lokr_w{number}")) is not None:
        return whole
    a, b = part[f".lokr_w{number}_a"], part[f".lokr_w{number}_b"]
    if number == 2 and (middle := part.get(".lokr_t2")) is not None:
        return torch.einsum("ij...,jr,ip->pr...", middle, b, a)
    return a @ b
