"""The timestep shift of ComfyUI's flow models: how far sampling moves timesteps towards noise."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling

from ..diffusion.objective import flux_shift, shift_by_area


def own_shift(model_sampling: Any, pixels: float, native_pixels: float) -> float:
    """Return the timestep shift for images of a size, from the model's sampling class, which a node may have changed.

    Flux and related models shift by the number of tokens. Others have a single shift, meant for `native_pixels`.

    Args:
        model_sampling: the model's sampling object.
        pixels: the number of pixels of the image.
        native_pixels: the number of pixels that the model's own shift is meant for.
    """
    kinds = comfy.model_sampling
    if isinstance(model_sampling, kinds.ModelSamplingFlux):
        return flux_shift(model_sampling.shift, pixels)
    if isinstance(model_sampling, kinds.ModelSamplingDiscreteFlow):
        return shift_by_area(model_sampling.shift, pixels, native_pixels)
    return 1.0
