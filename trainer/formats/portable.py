"""From what is trained to what the file holds, where an architecture's LoRA files are in PEFT's form.

Adapters are always trained and named in kohya's form, by ComfyUI's layers. In PEFT's form a layer has the name that
other programs know, no alpha (it is multiplied into lora_B, so that programs that ignore alpha scale right), and a
layer that others have in parts, such as a fused query, key and value, is cut into them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .lora_file import ALPHA, DORA_SCALE, DOWN, UP

A, B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Part:
    """A layer, or a part of its outputs, in a file.

    Attributes:
        name: "transformer.transformer_blocks.0.attn.to_q"
        rows: which rows of the layer's weight it has, in its own order; None is all of them as they are.
    """

    name: str
    rows: Tensor | None = None


def to_portable(state_dict: Mapping[str, Tensor], parts: Mapping[str, Sequence[Part]]) -> dict[str, Tensor]:
    """A LoRA in PEFT's form.

    Args:
        state_dict: in kohya's form: a layer's key, which has no dot, and a suffix.
        parts: of each layer, by its key. Layers without, which are those of text encoders, and those with other tensors
            than a LoRA's or DoRA's stay as they are: nothing reads LoHa or LoKr in another form than LyCORIS's.

    Raises:
        ValueError: a DoRA's scales are per input, and the layer is to be cut by outputs.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state_dict.items():
        layer, dot, suffix = key.partition(".")
        layers.setdefault(layer, {})[dot + suffix] = tensor

    portable: dict[str, Tensor] = {}
    for layer, tensors in layers.items():
        if layer not in parts or not {DOWN, UP} <= tensors.keys() <= {DOWN, UP, ALPHA, DORA_SCALE}:
            portable.update((layer + suffix, tensor) for suffix, tensor in tensors.items())
            continue
        for part in parts[layer]:
            portable.update((part.name + suffix, tensor) for suffix, tensor in _cut(layer, tensors, part.rows).items())
    return portable


def _cut(layer: str, tensors: Mapping[str, Tensor], rows: Tensor | None) -> dict[str, Tensor]:
    down, up = tensors[DOWN], tensors[UP]
    rank = down.shape[0]
    scale = float(tensors[ALPHA]) / rank if ALPHA in tensors else 1.0
    scaled = (up.float() * scale).to(up.dtype)
    if rows is not None:
        scaled = scaled[rows]
        used = (scaled != 0).any(dim=0)  # a layer that was joined of parts has a share of the rank for each
        if used.any():
            down, scaled = down[used], scaled[:, used]
    cut = {A: down.clone(), B: scaled}
    if (dora := tensors.get(DORA_SCALE)) is not None:
        if rows is not None and dora.shape[0] != up.shape[0]:
            raise ValueError(f"{layer} has a dora_scale per input {tuple(dora.shape)}; its outputs cannot be divided.")
        cut[DORA_SCALE] = dora.clone() if rows is None else dora[rows]
    return {suffix: tensor.to(memory_format=torch.contiguous_format) for suffix, tensor in cut.items()}
