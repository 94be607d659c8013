"""DoRA in PEFT's form, which ComfyUI's loader does not know."""

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


def with_known_names(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Give PEFT's magnitudes the name of ComfyUI's DoRA scales, so that its loader finds them.

    Returns:
        the state dict, and the old name of each renamed tensor by the new one.
    """
    renamed, old_names = {}, {}
    for key, tensor in state_dict.items():
        parts = split_key(key)
        if parts is not None and suffix_in_memory(parts[1]) == MAGNITUDE:
            old_names[parts[0] + DORA_SCALE] = key
            key = parts[0] + DORA_SCALE
        renamed[key] = tensor
    return renamed, old_names


def with_peft_dora(patches: Mapping[Any, Any], magnitudes: list[Tensor]) -> dict[Any, Any]:
    """Return the patches with `PeftDora` in place of those that were loaded with one of the magnitudes."""
    ids = {id(tensor) for tensor in magnitudes}
    return {
        target: PeftDora(patch.loaded_keys, patch.weights)
        if isinstance(patch, LoRAAdapter) and id(patch.weights[4]) in ids
        else patch
        for target, patch in patches.items()
    }
