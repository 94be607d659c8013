"""What a MODEL of ComfyUI tells against training on it, beyond its class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import CrucibleError
from ..diffusion.name_warnings import distilled_warning, warning_of_name, warning_of_other_task

_OF_DISTILLED = ("LCM", "ModelSamplingDiscreteDistilled")
"""Sampling classes, by name, that core's ModelSamplingDiscrete node puts on a model: they are in its extra nodes."""

_OF_PICTURES = {
    "index_timestep_zero": "Qwen-Image-Edit 2511, a model for editing",
    "negative_index": "Qwen-Image-Layered, a model that takes pictures apart into layers",
}
"""How Qwen-Images that start from a picture take it, as ComfyUI finds it in their files. Earlier ones, and FLUX.1
Kontext, are laid out as the models that draw from prompts: only their names tell."""


def require_ordinary_sampling(patcher: Any) -> None:
    """
    Raises:
        CrucibleError: a node has put the sampling of distilled models on this one.
    """
    kinds = {kind.__name__ for kind in type(patcher.get_model_object("model_sampling")).__mro__}
    if kinds & set(_OF_DISTILLED):
        raise CrucibleError(
            "The connected model samples by LCM, the way of distilled models: a ModelSamplingDiscrete node between the "
            "loader and Train LoRA says so. What it predicts is not what a LoRA is trained on, which would come out "
            "wrong. Connect the model before that node, and use the LoRA behind it."
        )


def warnings_of(patcher: Any) -> tuple[str, ...]:
    """Sentences about a model that is a doubtful one to train on, from its file's name and its layout."""
    config = patcher.model.model_config
    found = []
    if name := file_name(patcher):
        found.append(warning_of_name(name))
    if not any(found) and type(config).__name__ == "FluxSchnell":
        what = "The base model has the layout of FLUX.1 schnell (no guidance embedding), a model"
        free = "Go on if it is one that was freed from its distillation, as OpenFLUX.1 was."
        found.append(f"{distilled_warning(what)} {free}")
    if not any(found) and (kind := _OF_PICTURES.get(config.unet_config.get("default_ref_method"))):
        what = f"The base model has the layout of {kind}, and is trained here without the pictures that it starts from."
        found.append(warning_of_other_task(what))
    return tuple(text for text in found if text)


def file_name(patcher: Any) -> str:
    """The file that core's loaders loaded a model from, as they note it for loading it once more; else ""."""
    _, arguments, *_ = getattr(patcher, "cached_patcher_init", None) or (None, ())
    path = arguments[0] if arguments else None
    return Path(path).name if isinstance(path, str) else ""
