"""Patches for what ComfyUI's loader does not know: DoRA in PEFT's form, and LoKr in Tucker form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from comfy.weight_adapter import LoRAAdapter
from torch import Tensor

from ...formats.adapter_keys import split_key, suffix_in_memory
from ...formats.delta import delta_weight, peft_dora
from ...formats.lora_file import ALPHA, DORA_SCALE, DOWN, MAGNITUDE, UP


class PeftDora(LoRAAdapter):
    """A patch that computes DoRA as PEFT does, from the weight that it is applied to.

    ComfyUI's own patch divides by the norm of the weight without the LoRA, and PEFT by that with it.
    """

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: Any,
        function: Callable[[Tensor], Tensor],
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: Any = None,
    ) -> Tensor:
        """Add the change to the weight, in place, and return it."""
        up, down, alpha, _, magnitude, _ = self.weights
        factors = {UP: up, DOWN: down} | ({} if alpha is None else {ALPHA: torch.tensor(float(alpha))})
        delta = delta_weight({suffix: tensor.to(weight.device) for suffix, tensor in factors.items()})
        base = weight.float()
        change = peft_dora(magnitude.to(weight.device), base + delta.reshape(weight.shape)) - base
        weight += function((strength * change).to(weight.dtype))
        return weight


def for_loader(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, list[str]], list[Tensor]]:
    """Give a LoRA's tensors the form in which ComfyUI's loader takes them.

    PEFT's magnitudes get the name of ComfyUI's DoRA scales, and the second factor of a LoKr in Tucker form, at which
    the loader fails, is multiplied out.

    Returns:
        the state dict, the old keys of each renamed or multiplied tensor by the new key, and the magnitudes.
    """
    renamed: dict[str, Tensor] = {}
    old_keys: dict[str, list[str]] = {}
    magnitudes = []
    for key, tensor in state_dict.items():
        parts = split_key(key)
        if parts is not None and suffix_in_memory(parts[1]) == MAGNITUDE:
            old_keys[parts[0] + DORA_SCALE] = [key]
            key = parts[0] + DORA_SCALE
            magnitudes.append(tensor)
        renamed[key] = tensor
    for key in [key for key in renamed if key.endswith(_TUCKER)]:
        _multiply_out(renamed, key.removesuffix(_TUCKER), old_keys)
    return renamed, old_keys, magnitudes


_TUCKER = ".lokr_t2"


def _multiply_out(tensors: dict[str, Tensor], layer: str, old_keys: dict[str, list[str]]) -> None:
    factors = {key: tensors[key] for suffix in ("_t2", "_w2_a", "_w2_b") if (key := f"{layer}.lokr{suffix}") in tensors}
    if len(factors) < 3:
        return
    middle, a, b = factors.values()
    whole = torch.einsum("ij...,jr,ip->pr...", middle.float(), b.float(), a.float())
    if (alpha := tensors.get(layer + ALPHA)) is not None:
        # The loader divides alpha by the rank of the first factor now, or, if that is whole, leaves alpha out.
        first = tensors.get(f"{layer}.lokr_w1_b")
        whole *= (float(alpha) if first is None else len(first)) / len(b)
    for key in factors:
        del tensors[key]
    tensors[f"{layer}.lokr_w2"] = whole.contiguous()
    old_keys[f"{layer}.lokr_w2"] = list(factors)


def with_peft_dora(patches: Mapping[Any, Any], magnitudes: list[Tensor]) -> dict[Any, Any]:
    """Return the patches with `PeftDora` in place of those that were loaded with one of the magnitudes."""
    ids = {id(tensor) for tensor in magnitudes}
    return {
        target: PeftDora(patch.loaded_keys, patch.weights)
        if isinstance(patch, LoRAAdapter) and id(patch.weights[4]) in ids
        else patch
        for target, patch in patches.items()
    }
