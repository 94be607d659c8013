"""What an adapter adds to the weight of its layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from ..errors import CrucibleError
from .lora_file import ALPHA, DORA_SCALE, DOWN, MIDDLE, UP, LayerTensors

Kind = Literal["lora", "dora", "loha", "lokr", "diff", "other"]

BIASES = (".diff_b", ".b_norm")
"""What is added to a layer's bias."""

_DIFFERENCES = {".diff", ".w_norm", *BIASES}


def kind_of(adapter: Iterable[str]) -> Kind:
    """What a layer's suffixes in memory make of it."""
    suffixes = set(adapter)
    kind: Kind = "other"
    if {DOWN, UP} <= suffixes:
        kind = "dora" if DORA_SCALE in suffixes else "lora"
        suffixes -= {DOWN, UP, MIDDLE, ALPHA, DORA_SCALE}
    elif ".hada_w1_a" in suffixes:
        kind, suffixes = "loha", {suffix for suffix in suffixes if not suffix.startswith(".hada_")} - {ALPHA}
    elif suffixes & {".lokr_w1", ".lokr_w1_a"}:
        kind, suffixes = "lokr", {suffix for suffix in suffixes if not suffix.startswith(".lokr_")} - {ALPHA}
    elif suffixes & _DIFFERENCES:
        kind = "diff"
    return kind if suffixes <= _DIFFERENCES else "other"


def scale_of(adapter: LayerTensors) -> float:
    """alpha / rank, as ComfyUI's and kohya's readers have it; 1 where there is no alpha, or LoKr's matrices are both
    whole."""
    rank = rank_of(adapter)
    if ALPHA not in adapter or rank is None:
        return 1.0
    return float(adapter[ALPHA]) / rank


def rank_of(adapter: LayerTensors) -> int | None:
    """None where the adapter has none: a difference, or a LoKr of two whole matrices."""
    for suffix in (DOWN, ".hada_w1_b", ".lokr_w2_b", ".lokr_w1_b"):
        if suffix in adapter:
            return adapter[suffix].shape[0]
    return None


def delta_weight(adapter: LayerTensors, base_weight: Tensor | None = None, name: str = "A layer") -> Tensor:
    """ΔW in float32, of the layer's shape: (out, in), or (out, in, kernel height, kernel width), which LoHa and LoKr
    can have flattened to (out, in · kernel).

    LoRA: alpha / rank · up @ down (arXiv:2106.09685), with a middle for convolutions in Tucker form; LoHa:
    (w1_a w1_b) ∘ (w2_a w2_b) (arXiv:2108.06098); LoKr: w1 ⊗ w2 (arXiv:2212.10650, arXiv:2309.14859); DoRA:
    dora_scale · (W + ΔW) / norm - W (arXiv:2402.09353), where readers of files take the norms of W's outputs, or, if
    dora_scale is shaped so, of W + ΔW's inputs.

    Args:
        base_weight: W; needed for DoRA.
        name: of the layer and its LoRA, for errors.

    Raises:
        CrucibleError: it is a DoRA and there is no base weight or one of another size, or the method is unknown.
    """
    if kind_of(adapter.keys() - {DORA_SCALE}) == "other":
        raise CrucibleError(
            f"{name} has {', '.join(sorted(adapter))}, a method that is not known here (LoRA, DoRA, LoHa, LoKr and "
            "whole differences are), so what it does cannot be told. Use the file as it is in Load LoRA, or leave it "
            "out."
        )
    difference = _without_magnitude(adapter)
    if (magnitude := adapter.get(DORA_SCALE)) is None:
        return difference
    if base_weight is None or base_weight.numel() != difference.numel():
        raise CrucibleError(
            f"{name} is a DoRA, which changes the length of the base model's own weights, so what it does cannot be "
            f"told without that weight, and {'there is none' if base_weight is None else 'this one has another size'}. "
            "Connect `model`, the base model that it was made for, and `clip` for its text encoders (on the command "
            "line: --base), or leave it out."
        )
    weight = base_weight.float()
    difference = difference.reshape(weight.shape)
    changed = weight + difference
    if magnitude.shape[0] == weight.shape[0]:
        norm = torch.linalg.vector_norm(weight.flatten(1), dim=1)
        shape = (-1, *[1] * (weight.ndim - 1))
    else:
        norm = torch.linalg.vector_norm(changed.transpose(0, 1).flatten(1), dim=1)
        shape = (1, -1, *[1] * (weight.ndim - 2))
    ratio = magnitude.float().flatten() / (norm + torch.finfo(torch.float32).eps)
    return ratio.view(shape) * changed - weight


def without_middle(adapter: LayerTensors) -> LayerTensors:
    """A LoRA with its middle, if it has one, multiplied into `DOWN`."""
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
