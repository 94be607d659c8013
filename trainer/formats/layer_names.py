"""Layer names in LoRA files.

Files in kohya's format name a layer by "lora_unet_" and its path with underscores. Whose path it is depends on
the architecture: diffusers' for SD1.5, the original code's (sgm) for SDXL and Flux.1. Both kinds of base model
write the same keys: the diffusers one gets them here, the ComfyUI one from ComfyUI's own map.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from .architectures import Architecture

PREFIX = "lora_unet_"

_OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "class_embedding.linear_1": "label_emb.0.0",
    "class_embedding.linear_2": "label_emb.0.2",
}
_IN_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_IN_BLOCK = re.compile(
    r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)


def kohya_key(path: str) -> str:
    """Return the key of a layer whose path already uses the file's names."""
    return PREFIX + path.replace(".", "_")


def file_key(
    architecture: Architecture,
    path: str,
    *,
    layers_per_block: int = 2,
    attention_up_blocks: Collection[int] | None = None,
) -> str:
    """Return the key of a layer of a diffusers UNet, without suffix: "lora_unet_input_blocks_4_1_proj_in".

    Args:
        architecture: the architecture of the UNet.
        path: the module's path inside the UNet.
        layers_per_block, attention_up_blocks: as for `diffusers_unet_to_sgm`.

    Raises:
        ValueError: diffusers' names cannot be converted to those of the file. (For Flux.1, diffusers splits layers
            that the file stores as one.)
    """
    if architecture.naming == "diffusers":
        return kohya_key(path)
    if architecture.id == "sdxl":
        return kohya_key(diffusers_unet_to_sgm(path, layers_per_block, attention_up_blocks))
    raise ValueError(f"There is no rule to convert diffusers' {path!r} to a LoRA key for {architecture.name}.")


def is_of_text_encoder(key: str) -> bool:
    """Return whether a key of a file names a layer of an image model's text encoder.

    A language model that is trained itself has keys of the same kind, but is no text encoder of another model.
    """
    return key.startswith(("lora_te", "text_encoder")) and not is_of_language_model(key)


_LANGUAGE_MODEL = re.compile(r"lora_te_(?!text_|layers_|encoder_)")
"""The start of a language model's keys. transformers puts all of its layers into a module (model, transformer, …); keys
of CLIP, of T5, and of the Qwen of image models start with that module's content."""


def is_of_language_model(key: str) -> bool:
    """Return whether a key in memory names a layer of a language model, as `language_key` makes them."""
    return _LANGUAGE_MODEL.match(key) is not None


_BESIDE_VISION = re.compile(r"(?:model\.)?(?:language_model|text_model)\.(?:model\.)?(?=layers\.|embed_tokens\b)")


def text_path(path: str) -> str:
    """Return the path of a language model's layer as it is in a model that does not see pictures, and in ComfyUI.

    Args:
        path: the module's path in transformers, such as "model.language_model.layers.0.self_attn.q_proj".

    Returns:
        The path, here "model.layers.0.self_attn.q_proj"; any other path unchanged.
    """
    if path == "language_model.lm_head":
        return "lm_head"
    beside = _BESIDE_VISION.match(path)
    return f"model.{path[beside.end() :]}" if beside else path


def language_key(path: str) -> str:
    """Return the key in memory of a language model's layer: "lora_te_model_layers_0_self_attn_q_proj".

    It is the same whether or not the model also sees pictures.

    Args:
        path: the module's path in transformers, such as "model.layers.0.self_attn.q_proj".
    """
    return f"lora_te_{text_path(path).replace('.', '_')}"


def text_encoder_key(prefix: str, path: str) -> str:
    """Return the key of a layer of transformers' CLIPTextModel: "lora_te1_text_model_encoder_layers_0_mlp_fc1".

    Args:
        prefix: "lora_te" for a single text encoder; otherwise "lora_te1", "lora_te2".
        path: the module's path, with or without `text_model`, which transformers 5.0 and later leave out.
    """
    return f"{prefix}_text_model_{path.removeprefix('text_model.').replace('.', '_')}"


def diffusers_unet_to_sgm(path: str, layers_per_block: int, attention_up_blocks: Collection[int] | None = None) -> str:
    """Return the sgm name of a layer of a diffusers UNet2DConditionModel, for any number of blocks.

    sgm numbers all input blocks in one list (the first convolution, then each block's layers and its downsampler)
    and all output blocks in another (one more layer per block; the upsampler is part of the block's last layer).

    Args:
        path: the module's path, such as "down_blocks.1.attentions.0.proj_in", without ".weight" or ".bias".
        layers_per_block: the value of this name in the UNet's config.
        attention_up_blocks: the indices of the up blocks that have attention, which determines the position of
            their upsampler. None means all that have an upsampler, as in SDXL; for SD1.5 it is (1, 2, 3).

    Raises:
        ValueError: this kind of UNet has no such layer.
    """
    if path in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[path]
    match = _IN_BLOCK.fullmatch(path)
    if match is None:
        raise ValueError(f"{path!r} is not a layer of a diffusers UNet2DConditionModel.")
    side, kind, inner = match[1], match[3], match[5]
    block, index = int(match[2] or 0), int(match[4])
    if kind == "resnets":
        outer, _, rest = inner.partition(".")
        if outer not in _IN_RESNET or rest:
            raise ValueError(f"{path!r} is not a layer of a diffusers UNet2DConditionModel.")
        inner = _IN_RESNET[outer]

    first_input = 1 + block * (layers_per_block + 1)
    first_output = block * (layers_per_block + 1)
    match side, kind:
        case None, "resnets":
            return f"middle_block.{2 * index}.{inner}"
        case None, "attentions":
            return f"middle_block.{2 * index + 1}.{inner}"
        case "down", "resnets":
            return f"input_blocks.{first_input + index}.0.{inner}"
        case "down", "attentions":
            return f"input_blocks.{first_input + index}.1.{inner}"
        case "down", "downsamplers" if inner == "conv":
            return f"input_blocks.{first_input + layers_per_block}.0.op"
        case "up", "resnets":
            return f"output_blocks.{first_output + index}.0.{inner}"
        case "up", "attentions":
            return f"output_blocks.{first_output + index}.1.{inner}"
        case "up", "upsamplers" if inner == "conv":
            place = 2 if attention_up_blocks is None or block in attention_up_blocks else 1
            return f"output_blocks.{first_output + layers_per_block}.{place}.conv"
    raise ValueError(f"{path!r} is not a layer of a diffusers UNet2DConditionModel.")
