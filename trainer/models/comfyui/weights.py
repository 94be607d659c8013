"""Access to the weights of a ComfyUI model, for computations outside of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy.quant_ops import QuantizedTensor
from torch import Tensor

from .language_layers import language_models_of
from .naming import architecture_of, clip_keys, file_keys


def base_weights_of(model: Any, clip: Any) -> Callable[[str], Tensor | None]:
    """Return a function that looks up the weight of a layer by its key in memory.

    The function returns the weight as loaded, without patches, in float32 on the CPU, or None if neither model nor
    CLIP has such a layer.

    Args:
        model, clip: the MODEL and CLIP loaded by ComfyUI; either may be None.
    """
    found: dict[str, Any] = {}
    if model is not None:
        paths = file_keys(model.model, architecture_of(model.model))
        found |= _by_key(paths, model.get_key_patches("diffusion_model."), "diffusion_model.")
    if clip is not None:
        patches = clip.get_key_patches()
        for language in reversed(language_models_of(clip.cond_stage_model)):  # so that the first of several counts
            found |= {key: patches[f"{path}.weight"][0] for key, path in language.paths_by_key().items()}
        found |= _by_key(clip_keys(clip.cond_stage_model), patches)

    def base_weight(key: str) -> Tensor | None:
        if key not in found:
            return None
        weight, convert = found[key]
        weight = convert(weight.detach().to("cpu", copy=True), inplace=True)
        return (weight.dequantize() if isinstance(weight, QuantizedTensor) else weight).float()

    return base_weight


def _by_key(paths: dict[str, str], patches: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return each layer's weight and its conversion by key in memory; `paths` may list layers that a model lacks."""
    parameters = {f"{prefix}{path}.weight": key for path, key in paths.items()}
    return {key: patches[parameter][0] for parameter, key in parameters.items() if parameter in patches}
