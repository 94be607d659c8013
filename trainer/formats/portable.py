"""Convert trained adapters to PEFT's format, for the architectures whose LoRA files use it.

Adapters are always trained and named in kohya's format, with ComfyUI's layers. In PEFT's format, a layer has the name
that other programs know and no alpha (it is multiplied into lora_B, so that programs that ignore alpha scale
correctly). A layer that others split, such as a fused query, key and value, is cut into parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import CrucibleError
from .lora_file import ALPHA, BIAS, DORA_SCALE, DOWN, MAGNITUDE, UP

A, B, PEFT_BIAS = ".lora_A.weight", ".lora_B.weight", ".lora_B.bias"


@dataclass(frozen=True)
class Part:
    """A layer, or a part of its outputs, as a file stores it.

    Attributes:
        name: the name in the file: "transformer.transformer_blocks.0.attn.to_q".
        rows: the rows of the layer's weight that the part has, in the part's order; None for all rows in their order.
    """

    name: str
    rows: Tensor | None = None


def to_portable(
    state_dict: Mapping[str, Tensor], parts: Mapping[str, Sequence[Part]], *, has_biases: bool = False
) -> dict[str, Tensor]:
    """Convert a LoRA from kohya's format to PEFT's.

    Args:
        state_dict: the tensors in kohya's format; each key is a layer's key, which has no dot, and a suffix.
        parts: the parts of each layer, by the layer's key. Layers without parts, and layers with other tensors than
            those of a LoRA or DoRA, stay unchanged: no program reads LoHa or LoKr in another format than LyCORIS's.
        has_biases: whether the file's readers know PEFT's biases. Then a bias is written as one, and if one layer has a
            bias, all have one, because PEFT reads them for all layers or none. Otherwise, layers with biases stay
            unchanged.

    Raises:
        ValueError: a DoRA has scales per input, and its layer would be cut by outputs.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state_dict.items():
        layer, dot, suffix = key.partition(".")
        layers.setdefault(layer, {})[dot + suffix] = tensor

    known = {DOWN, UP, ALPHA, DORA_SCALE, MAGNITUDE} | ({BIAS} if has_biases else set())
    biased = has_biases and any(BIAS in tensors for tensors in layers.values())
    portable: dict[str, Tensor] = {}
    for layer, tensors in layers.items():
        if layer not in parts or not {DOWN, UP} <= tensors.keys() <= known:
            portable.update((layer + suffix, tensor) for suffix, tensor in tensors.items())
            continue
        for part in parts[layer]:
            cut = _cut(layer, tensors, part.rows)
            if biased:
                bias = tensors.get(BIAS, torch.zeros(len(tensors[UP]), dtype=tensors[UP].dtype))
                cut[PEFT_BIAS] = bias.clone() if part.rows is None else bias[part.rows]
            portable.update((part.name + suffix, tensor) for suffix, tensor in cut.items())
    return portable


def _cut(layer: str, tensors: Mapping[str, Tensor], rows: Tensor | None) -> dict[str, Tensor]:
    down, up = tensors[DOWN], tensors[UP]
    rank = down.shape[0]
    scale = float(tensors[ALPHA]) / rank if ALPHA in tensors else 1.0
    scaled = (up.float() * scale).to(up.dtype)
    if rows is not None:
        scaled = scaled[rows]
        used = (scaled != 0).any(dim=0)  # in a layer joined from parts, each part has its own share of the rank
        if used.any():
            down, scaled = down[used], scaled[:, used]
    cut = {A: down.clone(), B: scaled}
    if (dora := tensors.get(DORA_SCALE)) is not None:
        if rows is not None and dora.shape[0] != up.shape[0]:
            raise ValueError(f"{layer} has a dora_scale per input {tuple(dora.shape)}, so it cannot be cut by outputs.")
        cut[DORA_SCALE] = dora.clone() if rows is None else dora[rows]
    if (magnitude := tensors.get(MAGNITUDE)) is not None:
        of_part = magnitude.clone() if rows is None else magnitude[rows]
        if not (plain := of_part.isnan()).all():
            if plain.any():
                raise CrucibleError(
                    f"{layer} is a DoRA in some of its outputs and a plain LoRA in others, and the format has no place "
                    "for that. Merge it with its base model first: python -m trainer merge FILE --base MODEL."
                )
            # PEFT keeps the magnitude of a convolution in the shape of its output.
            cut[MAGNITUDE] = of_part.view(1, -1, *[1] * (down.ndim - 2)) if down.ndim > 2 else of_part
    return {suffix: tensor.to(memory_format=torch.contiguous_format) for suffix, tensor in cut.items()}
