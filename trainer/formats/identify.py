"""Identify the architecture that a LoRA file is for, and the program that made it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from .adapter_keys import Shapes, layer_sizes
from .architectures import ARCHITECTURES, Architecture
from .spelling import names_text_encoder

_PREFIX = re.compile(
    r"^(lora_unet__?|lora_transformer_|lora_prior_unet_|lycoris_|model\.diffusion_model\.|diffusion_model\."
    r"|base_model\.model\.|transformer\.|unet\.)+"
)
_CROSS_ATTENTION = {128: ("demo",), 768: ("sd15",), 1024: ("sd2", "sd2_v"), 2048: ("sdxl",)}
"""UNet architectures by the width of their text embeddings. Other widths (1280: SDXL's refiner) are not supported."""


def identify(shapes: Shapes, metadata: Mapping[str, str]) -> Architecture | None:
    """Return the architecture that a LoRA is for: the first of `candidates`, or None if there is none."""
    return next(iter(candidates(shapes, metadata)), None)


def candidates(shapes: Shapes, metadata: Mapping[str, str]) -> tuple[Architecture, ...]:
    """Return the architectures that a LoRA can be for, the most likely first.

    Keys and shapes decide. Some architectures have the same layers (Flux.1 and Chroma, Anima and Cosmos-Predict2): the
    metadata decides between them, and if it does not, all of them are returned. The metadata also decides alone if the
    keys are unknown.

    Args:
        shapes: the shape of each tensor, by key.
        metadata: the file's metadata.
    """
    ids = _from_keys(shapes)
    stated = _from_metadata(metadata)
    if not ids:
        ids = tuple(sorted(stated)) if len(stated) == 1 else ()
    elif stated & set(ids):
        ids = tuple(id for id in ids if id in stated)
    return tuple(ARCHITECTURES[id] for id in ids)


def trainer_name(metadata: Mapping[str, str]) -> str:
    """Return the name of the program that made a file, according to its metadata; empty if it is unknown."""
    if version := metadata.get("crucible.version"):
        return f"LoRA Crucible {version}"
    if software := _object(metadata.get("software")):
        return " ".join(str(software[key]) for key in ("name", "version") if software.get(key))
    if any(key.startswith("ot_") for key in metadata):
        return "OneTrainer"
    module = metadata.get("ss_network_module", "")
    if module.startswith("lycoris"):
        return "kohya's trainer with LyCORIS"
    if module or "ss_sd_scripts_commit_hash" in metadata:
        return "kohya's trainer (sd-scripts or musubi-tuner)"
    if "lora_adapter_metadata" in metadata:
        return "diffusers"
    return ""


def _object(text: str | None) -> dict:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _from_metadata(metadata: Mapping[str, str]) -> set[str]:
    specified = metadata.get("modelspec.architecture", "").lower().partition("/")[0]
    version = metadata.get("ss_base_model_version", "").lower()
    return {
        row.id
        for row in ARCHITECTURES.values()
        if row.id not in ("demo", "unknown")
        and (specified == row.modelspec.lower().partition("/")[0] or version == row.base_model_version.lower())
    }


class _Layers:
    """The layers of a file by name, all spelled alike: without prefix, with underscores."""

    def __init__(self, shapes: Shapes) -> None:
        self.originals = layer_sizes(shapes)
        self.sizes = {
            _PREFIX.sub("", name).replace(".", "_"): size
            for name, size in self.originals.items()
            if not names_text_encoder(name)
        }
        self.of_text = {
            name.replace(".", "_"): size for name, size in self.originals.items() if names_text_encoder(name)
        }

    def any(self, pattern: str) -> bool:
        """Return whether the pattern occurs in any layer's name."""
        return any(re.search(pattern, name) for name in self.sizes)

    def inputs(self, pattern: str) -> set[int]:
        """Return the numbers of inputs of the layers whose names contain the pattern."""
        return {columns for name, (_, columns) in self.sizes.items() if columns and re.search(pattern, name)}

    def ratios(self, pattern: str) -> set[float]:
        """Return the ratios of outputs to inputs of the layers whose names contain the pattern."""
        return {
            rows / columns
            for name, (rows, columns) in self.sizes.items()
            if rows and columns and re.search(pattern, name)
        }

    def last(self, pattern: str) -> int:
        """Return the highest number that follows the pattern in a layer's name; -1 if there is none."""
        found = (re.search(rf"{pattern}_(\d+)", name) for name in self.sizes)
        return max((int(match[1]) for match in found if match), default=-1)


def _from_keys(shapes: Shapes) -> tuple[str, ...]:
    layers = _Layers(shapes)
    for pattern, ids in (
        (r"^(input_blocks|output_blocks|middle_block|down_blocks|up_blocks|mid_block)_", _unet),
        (r"^joint_blocks_\d+_(x|context)_block_", ("sd3",)),
        (r"^(double|single)_stream_blocks_\d", ("hidream",)),
        (r"^(double_layers|single_layers|joint_transformer_blocks)_\d", ("auraflow",)),
        (r"^distilled_guidance_layer_", ("chroma",)),
        (r"^(double|single)_blocks_\d|^(double|single)_stream_modulation_", _double_blocks),
        (r"^single_transformer_blocks_\d", _single_transformer_blocks),
        (r"^transformer_blocks_\d", _transformer_blocks),
        (r"^(blocks|llm_adapter_blocks)_\d", _blocks),
        (r"^(layers_\d+_(attention|attn|feed_forward|adaLN_modulation)|noise_refiner|context_refiner)_", _lumina),
    ):
        if layers.any(pattern):
            return ids(layers) if callable(ids) else ids
    return _text_encoders(layers)


def _unet(layers: _Layers) -> tuple[str, ...]:
    if widths := layers.inputs(r"attn2_to_[kv]$"):
        return _CROSS_ATTENTION.get(max(widths), ())
    if layers.any(r"_transformer_blocks_[1-9]"):  # only SDXL has several in one layer
        return ("sdxl",)
    if of_text := _text_encoders(layers):
        return of_text
    # SDXL has only three levels, and no attention at the first.
    if layers.any(r"^(input_blocks_([12]|10|11)_1|output_blocks_(9|10|11)|down_blocks_(0_att|3)|up_blocks_3)_?"):
        return ("sd15", "sd2", "sd2_v")
    return ("sdxl", "sd15", "sd2", "sd2_v")


def _text_encoders(layers: _Layers) -> tuple[str, ...]:
    names = layers.of_text
    if any(re.match(r"lora_te3_", name) for name in names):
        return ("sd3",)
    if any(re.match(r"lora_te2_encoder_block", name) for name in names):  # T5
        return ("flux1", "chroma")
    if any(re.match(r"lora_te2_|text_encoder_2_", name) for name in names):
        return ("sdxl",)
    if any(re.match(r"lora_te_layers_", name) for name in names):  # Qwen
        return ("anima",)
    widths = {columns for name, (_, columns) in names.items() if columns and "self_attn" in name}
    return {128: ("demo",), 768: ("sd15",), 1024: ("sd2", "sd2_v")}.get(max(widths, default=0), ())


def _double_blocks(layers: _Layers) -> tuple[str, ...]:
    gated = 9 in layers.ratios(r"single_blocks_\d+_linear1$") or 6 in layers.ratios(r"_mlp_0$")
    if gated or layers.any(r"_stream_modulation_") or layers.inputs(r"_attn_(qkv|proj)$") & {4096, 6144}:
        return ("flux2",)
    originals = any(re.search(r"\.(img|txt)_attn_(qkv|proj)$", name) for name in layers.originals)
    blocks = layers.last(r"^double_blocks") >= 19 or layers.last(r"^single_blocks") >= 38
    if originals or blocks or layers.any(r"_mod_linear$|_mlp_fc[12]$|_modulation_linear$|individual_token_refiner"):
        return ("hunyuan_video",)
    return ("flux1",) if layers.any(r"_mod_lin$|_modulation_lin$|^(vector|guidance)_in_") else ("flux1", "chroma")


def _single_transformer_blocks(layers: _Layers) -> tuple[str, ...]:
    if layers.any(r"_attn_to_qkv_mlp_proj$|_ff_linear_(in|out)$"):
        return ("flux2",)
    if layers.any(r"_ff_linear_[12]$"):
        return ("auraflow",)
    if layers.any(r"token_refiner") or layers.last(r"^single_transformer_blocks") >= 38:
        return ("hunyuan_video",)
    return ("flux1",) if layers.any(r"_norm1?_linear$|_norm1_context_linear$") else ("flux1", "chroma")


def _transformer_blocks(layers: _Layers) -> tuple[str, ...]:
    if layers.any(r"_(img|txt)_(mlp_net|mod_1)"):
        return ("qwen_image",)
    if layers.any(r"_attn1_"):
        if 1152 in layers.inputs(r"_attn1_to_q$"):
            return ("pixart_sigma", "pixart_alpha")
        return ("cosmos_predict2", "anima") if 1024 in layers.inputs(r"_attn2_to_k$") else ("ltxv",)
    widths = layers.inputs(r"_attn_to_[qkv]$|_add_[qkv]_proj$")
    if widths & {1536, 2432}:
        return ("sd3",)
    if layers.any(r"_ff_context_"):
        return ("flux1", "chroma") if 3072 in widths else ("sd3",)
    return ("qwen_image",) if layers.last(r"^transformer_blocks") >= 19 else ("flux1", "chroma", "qwen_image", "sd3")


def _blocks(layers: _Layers) -> tuple[str, ...]:
    if layers.any(r"^llm_adapter_"):
        return ("anima",)
    if layers.any(r"_(self|cross)_attn_([qkv]|output)_proj$|_mlp_layer[12]$|_adaln_modulation_"):
        return ("cosmos_predict2", "anima")
    if layers.any(r"_(self|cross)_attn_[qkvo](_img)?$|_ffn_[02]$|_ffn_net_"):
        return ("wan",)
    if layers.any(r"_attn1_Wqkv$|_attn2_(kv|q)_proj$|_default_modulation_"):
        return ("hunyuan_dit",)
    if layers.any(r"_attn1_to_[qkv]$"):
        return ("hunyuan_dit",) if 1408 in layers.inputs(r"_attn1_to_q$") else ("wan",)
    if layers.any(r"_cross_attn_(kv|q)_linear$|_attn_qkv$"):
        return ("pixart_sigma", "pixart_alpha")
    return ()


def _lumina(layers: _Layers) -> tuple[str, ...]:
    widths = layers.inputs(r"_(attention|attn)_(qkv|to_[qkv])$|_feed_forward_(w1|linear_1)$")
    if 2304 in widths or layers.any(r"_attn_to_[qkv]$"):
        return ("lumina2",)
    return ("z_image",) if 3840 in widths or layers.any(r"_attention_to_[qkv]$") else ("z_image", "lumina2")


def architecture_names(architectures: Iterable[Architecture]) -> str:
    """Return the names of architectures as shown to users: "Flux.1 or Chroma"."""
    return " or ".join(row.name for row in architectures) or "an unknown architecture"
