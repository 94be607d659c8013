"""Signs that a ComfyUI MODEL is unsuitable for training, apart from its class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import CrucibleError
from ..diffusion.name_warnings import distilled_warning, warning_of_name, warning_of_other_task

_OF_DISTILLED = ("LCM", "ModelSamplingDiscreteDistilled")
"""Names of the sampling classes for distilled models that ComfyUI's ModelSamplingDiscrete node sets.

By name, because they are defined in ComfyUI's extra nodes.
"""

_OF_PICTURES = {
    "index_timestep_zero": "Qwen-Image-Edit 2511, a model for editing",
    "negative_index": "Qwen-Image-Layered, a model that splits images into layers",
}
"""Qwen-Image models that start from an image, by the way they take it, which ComfyUI detects in their files.

Earlier ones, and FLUX.1 Kontext, have the same layout as text-to-image models and can only be recognised by name.
"""


def require_ordinary_sampling(patcher: Any) -> None:
    """Raise if a node has set the model to a sampling type for distilled models.

    Raises:
        CrucibleError: the model uses LCM sampling.
    """
    kinds = {kind.__name__ for kind in type(patcher.get_model_object("model_sampling")).__mro__}
    if kinds & set(_OF_DISTILLED):
        raise CrucibleError(
            "The connected model uses LCM sampling, which is meant for distilled models. It was set by a "
            "ModelSamplingDiscrete node between the loader and Train LoRA. A LoRA cannot learn from this kind of "
            "prediction and would come out wrong. Connect the model from before that node; the finished LoRA can be "
            "used after it."
        )


def warnings_of(patcher: Any) -> tuple[str, ...]:
    """Return warnings about a model that is unlikely to train well, judging by its file name and layout."""
    config = patcher.model.model_config
    found = []
    if name := file_name(patcher):
        found.append(warning_of_name(name))
    if not any(found) and type(config).__name__ == "FluxSchnell":
        what = "The base model has the layout of FLUX.1 schnell (no guidance embedding), a model"
        free = "You can ignore this for a model whose distillation was undone, such as OpenFLUX.1."
        found.append(f"{distilled_warning(what)} {free}")
    if not any(found) and (kind := _OF_PICTURES.get(config.unet_config.get("default_ref_method"))):
        what = f"The base model has the layout of {kind}, and is trained here without the images that it starts from."
        found.append(warning_of_other_task(what))
    return tuple(text for text in found if text)


def file_name(patcher: Any) -> str:
    """Return the name of the file that ComfyUI loaded a model from; "" if unknown."""
    return next(iter(file_names(patcher)), "")


def file_names(patcher: Any) -> tuple[str, ...]:
    """Return the names of the files that ComfyUI loaded a model from, as recorded for reloading; () if unknown."""
    _, arguments, *_ = getattr(patcher, "cached_patcher_init", None) or (None, ())
    paths = arguments[0] if arguments else None
    paths = paths if isinstance(paths, list | tuple) else [paths]
    return tuple(Path(path).name for path in paths if isinstance(path, str))
