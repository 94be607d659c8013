"""The weights of a ComfyUI model, for what is computed from them outside of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy.quant_ops import QuantizedTensor
from torch import Tensor

from .naming import architecture_of, file_keys


def base_weights_of(model: Any) -> Callable[[str], Tensor | None]:
    """The weight of a layer by its key in memory, float32 on the CPU, as it was loaded: without patches. None where the
    model has no such layer; text encoders are not part of it."""
    paths = {key: path for path, key in file_keys(model.model, architecture_of(model.model)).items()}
    found = model.get_key_patches("diffusion_model.")

    def base_weight(key: str) -> Tensor | None:
        if key not in paths:
            return None
        weight, convert = found[f"diffusion_model.{paths[key]}.weight"][0]
        weight = convert(weight.detach().to("cpu", copy=True), inplace=True)
        return (weight.dequantize() if isinstance(weight, QuantizedTensor) else weight).float()

    return base_weight
