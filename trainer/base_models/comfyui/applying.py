"""A LoRA on ComfyUI's MODEL and CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.sd
from torch import Tensor

from ...errors import CrucibleError
from .naming import architecture_of


def with_lora(
    model: Any, clip: Any, lora: Mapping[str, Tensor], strength_model: float, strength_clip: float
) -> tuple[Any, Any]:
    """Clones of MODEL and CLIP (None stays None) with the LoRA on them, as core's LoraLoader does it.

    Raises:
        CrucibleError: no key of the LoRA has a place in either.
    """
    patched_model, patched_clip = comfy.sd.load_lora_for_models(
        model, clip, dict(lora), strength_model, strength_clip, lora_metadata=getattr(lora, "metadata", None)
    )
    before = _patches(model) + (0 if clip is None else _patches(clip.patcher))
    after = _patches(patched_model) + (0 if clip is None else _patches(patched_clip.patcher))
    if before == after:
        name = getattr(lora, "name", "") or "The connected LoRA"
        raise CrucibleError(
            f"{name} does not fit this model: none of its {len(lora)} keys has a place in "
            f"{architecture_of(model.model).name}, so it would have no effect. It was made for another kind of base "
            "model; choose a LoRA for this one, or load the model that the LoRA was trained on."
        )
    return patched_model, patched_clip


def _patches(patcher: Any) -> int:
    return sum(map(len, patcher.patches.values()))
