"""How far ComfyUI's sampling of a flow model moves timesteps towards noise."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling

from ..diffusion.objective import flux_shift, shift_by_area


def own_shift(model_sampling: Any, pixels: float, native_pixels: float) -> float:
    """The shift for images of `pixels`, from the model's sampling class, which a node may have changed.

    Flux and its relatives shift by the number of tokens; the others have one shift, which is meant for `native_pixels`.
    """
    kinds = comfy.model_sampling
    if isinstance(model_sampling, kinds.ModelSamplingFlux):
        return flux_shift(model_sampling.shift, pixels)
    if isinstance(model_sampling, kinds.ModelSamplingDiscreteFlow):
        return shift_by_area(model_sampling.shift, pixels, native_pixels)
    return 1.0
