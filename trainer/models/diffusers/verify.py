"""Checking that diffusers can load a saved LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers.loaders
from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from torch import Tensor, nn

from ...errors import CrucibleError
from ...formats.architectures import Architecture
from ...formats.lora_file import ALPHA, DORA_SCALE, DOWN, LYCORIS, UP, read_lora

_A, _B = ".lora_A.weight", ".lora_B.weight"


def unmatched_keys(path: Path, unet: nn.Module, text_encoders: Mapping[str, nn.Module] | None = None) -> list[str]:
    """Return the keys of a saved SD1.5 or SDXL LoRA that are missing or that diffusers' loader does not apply.

    The file goes through the key conversion of diffusers' loader. Each tensor must then have the path of an existing
    module and a matching shape, and each layer must have all three of its keys. diffusers cannot load LoHa and LoKr and
    skips DoRA's scales, so these are not checked.

    Args:
        path: the LoRA file.
        unet: a UNet2DConditionModel, with or without peft layers.
        text_encoders: the text encoders by their names in the pipeline: text_encoder, text_encoder_2.

    Returns:
        The missing keys if there are any, else the keys that are not applied; empty if everything is loaded.

    Raises:
        CrucibleError: the file cannot be read, or diffusers' loader rejects it.
    """
    state_dict, _ = read_lora(path)
    state_dict = {key: tensor for key, tensor in state_dict.items() if not key.endswith(DORA_SCALE)}
    if any(mark in key for key in state_dict for mark in LYCORIS):
        return []
    suffixes = (DOWN, UP, ALPHA)
    layers = {key.removesuffix(suffix) for key in state_dict for suffix in suffixes if key.endswith(suffix)}
    missing = {layer + suffix for layer in layers for suffix in suffixes} - state_dict.keys()
    if missing:
        return sorted(missing)

    arrived: set[int] = set()
    for prefix, converted in _converted(path, state_dict, unet).items():
        modules = dict(unet.named_modules() if prefix == "unet" else (text_encoders or {})[prefix].named_modules())
        arrived |= {
            id(tensor)
            for name, tensor in converted.items()
            if name.endswith((_A, _B)) and _fits(_module(modules, name[: -len(_A)]), tensor, name.endswith(_A))
        }
    tensors = {key: tensor for key, tensor in state_dict.items() if not key.endswith(ALPHA)}
    return sorted(key for key, tensor in tensors.items() if id(tensor) not in arrived)


def unmatched_in_transformer(
    path: Path, architecture: Architecture, shapes: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """Return the keys of a saved LoRA of a transformer that diffusers' loader does not apply, by diffusers' names.

    The file goes through the key conversion of diffusers' loader. Each tensor must then have the path of a layer of the
    transformer and a matching shape, and each layer must have both of its tensors. What diffusers does not read (LoHa,
    LoKr, scales of DoRA) is not checked.

    Args:
        path: the LoRA file.
        architecture: the architecture, which names diffusers' loader.
        shapes: the shape of the weight of each layer of the transformer, by diffusers' path.

    Raises:
        CrucibleError: the file cannot be read, or diffusers' loader rejects it.
    """
    tensors, _ = read_lora(path)
    tensors = {key: tensor for key, tensor in tensors.items() if not key.endswith(DORA_SCALE)}
    if any(mark in key for key in tensors for mark in LYCORIS):
        return []
    assert architecture.diffusers_loader is not None
    loader = getattr(diffusers.loaders, architecture.diffusers_loader)
    try:
        converted = loader.lora_state_dict(dict(tensors))
    except (ValueError, KeyError, IndexError, AssertionError) as error:
        raise _rejected(path, error) from error
    found = {key.removeprefix("transformer."): tensor.shape for key, tensor in converted.items()}
    unmatched = []
    for key, shape in found.items():
        layer, is_down = key.removesuffix(_A).removesuffix(_B), key.endswith(_A)
        weight = shapes.get(layer)
        fits = weight is not None and (shape[1:] == weight[1:] if is_down else shape[0] == weight[0])
        if not fits or layer + (_B if is_down else _A) not in found:
            unmatched.append(key)
    return sorted(unmatched)


def _rejected(path: Path, error: Exception) -> CrucibleError:
    reason = " ".join(str(error).split())
    return CrucibleError(
        f"The LoRA {path} cannot be loaded by diffusers: {reason or type(error).__name__}. It may not work in other "
        "programs. Please report this with the name of the base model."
    )


def _module(modules: Mapping[str, nn.Module], path: str) -> nn.Module | None:
    """Return the module at a path, with or without `text_model.`, which transformers 5.0 and later leave out."""
    return modules.get(path, modules.get(path.removeprefix("text_model.")))


def _converted(path: Path, state_dict: dict[str, Tensor], unet: Any) -> dict[str, dict[str, Tensor]]:
    """Return the same tensors by part of the pipeline, under the names that diffusers' loader passes to peft."""
    is_sdxl = unet.config.get("addition_embed_type") == "text_time"
    loader = StableDiffusionXLLoraLoaderMixin if is_sdxl else StableDiffusionLoraLoaderMixin
    try:
        converted, _ = loader.lora_state_dict(dict(state_dict), unet_config=unet.config)
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in converted.items():
            part, _, name = key.partition(".")
            parts.setdefault(part, {})[name] = tensor
        return {
            part: convert_unet_state_dict_to_peft(tensors)
            if part == "unet"
            else convert_state_dict_to_peft(convert_state_dict_to_diffusers(tensors))
            for part, tensors in parts.items()
        }
    except (ValueError, KeyError, IndexError) as error:
        raise _rejected(path, error) from error


def _fits(module: nn.Module | None, tensor: Tensor, is_down: bool) -> bool:
    weight = getattr(getattr(module, "base_layer", module), "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != tensor.ndim:
        return False
    return tensor.shape[1:] == weight.shape[1:] if is_down else tensor.shape[0] == weight.shape[0]
