"""The names of language models' layers in LoRA files.

transformers calls a layer "model.layers.0.self_attn.q_proj". PEFT and the trainers built on it (LLaMA-Factory, unsloth,
axolotl) write "base_model.model." in front of that, and ComfyUI reads "text_encoders.transformer." in front of it,
whichever text encoder it loaded the model as.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from .layer_names import is_of_language_model

OF_COMFYUI, OF_PEFT = "text_encoders.transformer.", "base_model.model."
"""What ComfyUI and PEFT write in front of a layer's path in transformers."""

_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module|base_layer)\.")
_BEFORE = re.compile(r"base_model\.model\.|text_encoders\.transformer\.|text_encoders\.\w+\.transformer\.")
_PATH = re.compile(
    r"(?:(?:model\.(?:language_model\.|text_model\.|decoder\.)?|language_model\.model\.|gpt_neox\.|backbone\.)layers"
    r"|transformer\.h)\.\d+\.\w[\w.]*"
    r"|(?:language_model\.)?(?:lm_head|embed_out)|(?:model\.(?:language_model\.)?)?embed_tokens"
)
"""The paths of layers in the language models of transformers."""

_VISION = re.compile(r"(?:model\.)?(?:visual|vision_tower|vision_model|multi_modal_projector)\.")
"""The start of the paths of layers with which a language model sees pictures."""

_INNER = {
    **{f"self_attn_{name}": f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj")},
    **{f"mlp_{name}": f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj", "gate_up_proj")},
    **{
        f"linear_attn_{name}": f"linear_attn.{name}"
        for name in ("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "in_proj_qkvz", "in_proj_ba", "out_proj")
    },
}
_UNDERSCORED = re.compile(r"lora_te_(?:model_)?layers_(\d+)_(\w+)")


@lru_cache(maxsize=1 << 16)
def language_path(name: str) -> str | None:
    """Return the path in transformers of the layer that a name in a file, or a key in memory, refers to.

    Returns None if it is not the name of a language model's layer, or has underscores that may stand for dots.
    """
    if match := _UNDERSCORED.fullmatch(name):
        inner = _INNER.get(match[2])
        return None if inner is None else f"model.layers.{match[1]}.{inner}"
    if name in ("lora_te_lm_head", "lora_te_embed_out"):
        return name.removeprefix("lora_te_")
    path = _without_prefix(name)
    return path if _PATH.fullmatch(path) else None


def _without_prefix(name: str) -> str:
    path = _WRAPPERS.sub("", name)
    before = _BEFORE.match(path)
    return path[before.end() :] if before else path


def names_language_model(name: str) -> bool:
    """Return whether a layer name in a file is that of a language model, as PEFT, ComfyUI or transformers write it."""
    return language_path(name) is not None


def are_of_language_model(names: Iterable[str]) -> bool:
    """Return whether a file with these layer names, or keys in memory, is a LoRA for a language model alone.

    It may also change the layers with which the language model sees pictures.
    """
    others = [name for name in names if not _VISION.match(_without_prefix(name))]
    return bool(others) and all(is_of_language_model(name) or names_language_model(name) for name in others)
