"""Whether a LoRA fits the CLIP that it is put on, alone or beside a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import CrucibleError
from ...formats.adapter_keys import layer_sizes
from ...formats.identify import architecture_names, candidates
from ...formats.lora_sidecars import plain
from ...messages.wording import counted, listed
from .fitting import Match
from .language_layers import LanguageModel, block_of, encoder_names, inner_path

_LOAD = "Connect the CLIP of the language model that it was trained on: Load CLIP with that model's file"


def clip_name(clip: Any) -> str:
    """Return ComfyUI's names of the text encoders in a CLIP, such as "the CLIP (clip_l, t5xxl)"."""
    names = [] if clip is None else encoder_names(clip.cond_stage_model)
    return f"the CLIP ({', '.join(names)})" if names else "the CLIP"


def require_fitting_clip(name: str, lora: Mapping[str, Tensor], clip: Any, match: Match) -> None:
    """Check that a LoRA for pictures changes the text encoders of a CLIP that is connected without a MODEL.

    Raises:
        CrucibleError: it changes only the model, or other text encoders than these.
    """
    if match.matched:
        return
    if match.elsewhere and not match.unmatched:
        raise CrucibleError(
            f"{name} changes only the model that draws ({counted(match.elsewhere, 'key')}), and only a CLIP is "
            "connected, so it would have no effect. Connect the MODEL as well; for the text encoder alone, choose a "
            "LoRA that changes it."
        )
    made_for = architecture_names(candidates(_shapes(lora), getattr(lora, "metadata", {})))
    raise CrucibleError(
        f"{name} does not fit {clip_name(clip)}: it was made for {made_for}, and none of its "
        f"{counted(len(lora), 'key')} is for these text encoders, so it would have no effect. Connect the CLIP of the "
        "model that it was trained on, or choose another LoRA."
    )


def require_fitting_language_model(
    name: str, lora: Mapping[str, Tensor], clip: Any, model: LanguageModel | None, match: Match
) -> None:
    """Check that a language model's LoRA was made for the language model in a CLIP, or for one like it.

    Names and some sizes are the same in many language models, so a LoRA is refused as a whole if a layer has another
    size, or if the CLIP lacks one of its blocks. It is not refused for a block that ComfyUI itself has left out, nor
    for what lies outside of the blocks, such as an output layer.

    Args:
        name, lora: the LoRA and its name, as shown to users.
        clip: the CLIP; None if there is none.
        model: the language model in it that the LoRA fits best; None if it has none.
        match: how the LoRA matches it.

    Raises:
        CrucibleError: it is for another language model, it is broken, or there is no language model.
    """
    if clip is None:
        raise CrucibleError(
            f"{name} is for a language model, which ComfyUI loads as CLIP, and no CLIP is connected, so it would have "
            f"no effect: it changes nothing in the model that draws. {_LOAD}."
        )
    if model is None:
        raise CrucibleError(
            f"{name} is for a language model, and {clip_name(clip)} has none, so it would have no effect. {_LOAD}."
        )
    if match.problem is not None:
        raise match.problem
    if not (difference := _difference(lora, model, match)) and match.matched:
        return
    what = f"None of its {counted(len(lora), 'key')} fits, so it would have no effect"
    if match.matched:
        what = (
            f"{match.matched} of its {len(lora)} keys would fit by chance, but applied in part, it would do something "
            "else than it was trained to do, so it is not applied"
        )
    base = plain(getattr(lora, "metadata", {}).get("ss_sd_model_name", ""))
    trained_on = f" (according to the file, {base})" if base else ""
    raise CrucibleError(
        f"{name} does not fit {clip_name(clip)}: it was made for another language model{trained_on}. "
        f"{difference or _shown(match)}. {what}. {_LOAD}, or choose a LoRA for this one."
    )


def _difference(lora: Mapping[str, Tensor], model: LanguageModel, match: Match) -> str:
    """Return how a LoRA's language model differs from the one in the CLIP, as a sentence; "" if it may be the same."""
    if match.misfits:
        largest = max(match.misfits, key=lambda one: math.prod(one.in_lora))
        lora_size, its_size = (" x ".join(map(str, size)) for size in (largest.in_lora, largest.in_model))
        layer = largest.layer.partition(".transformer.")[2] or largest.layer
        return f"The sizes differ: {layer} is {lora_size} in the LoRA and {its_size} in the CLIP"
    paths = [inner_path(layer) for layer in layer_sizes(_shapes(lora))]
    blocks = 1 + max((block_of(path) or 0 for path in paths), default=0)
    if blocks > model.blocks and not model.is_cut:
        return f"It changes {blocks} blocks, and the CLIP has {model.blocks}"
    unknown = (path for path in paths if path not in model.layers)
    lacking = [path for path in unknown if (block := block_of(path)) is not None and block < model.blocks]
    if lacking:
        return f"It changes layers that the CLIP does not have ({listed(lacking)})"
    return ""


def _shown(match: Match) -> str:
    return f"Its keys, such as {', '.join(match.unmatched[:2])}, are those of none of its layers"


def _shapes(lora: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in lora.items()}
