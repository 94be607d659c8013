"""The names of a ComfyUI model's layers in a LoRA file, from ComfyUI's own key map."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.model_base
import comfy.supported_models
import comfy.utils

from ...adapters import is_of_text_encoder
from ...errors import CrucibleError
from ...formats.architectures import ARCHITECTURES, Architecture
from ...formats.lora_file import read_lora
from .demo import CrucibleDemo

_PREFIX = "diffusion_model."


def architecture_of(model: Any) -> Architecture:
    """Which row of the format table a loaded model is."""
    if isinstance(model.model_config, CrucibleDemo):
        return ARCHITECTURES["demo"]
    # Exact classes: ComfyUI derives models of other layouts from these.
    if type(model) is comfy.model_base.SDXL:
        return ARCHITECTURES["sdxl"]
    if type(model) is comfy.model_base.Flux:
        return ARCHITECTURES["flux1"]
    if isinstance(model.model_config, comfy.supported_models.SD15):
        return ARCHITECTURES["sd15"]
    return ARCHITECTURES["unknown"]


def file_keys(model: Any, architecture: Architecture) -> dict[str, str]:
    """The key in a file of each layer of `model.diffusion_model`, by path; only layers that ComfyUI's loader knows.

    A layer has several keys in ComfyUI's map. The one written is kohya's: the diffusers name for SD1.5, else
    the native one.
    """
    known = comfy.lora.model_lora_keys_unet(model, {})
    native = {
        parameter: key
        for key, parameter in known.items()
        if isinstance(parameter, str) and key == "lora_unet_" + _path(parameter).replace(".", "_")
    }
    if architecture.naming == "diffusers":
        for name, path in comfy.utils.unet_to_diffusers(model.model_config.unet_config).items():
            key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            if name.endswith(".weight") and key in known:
                native[_PREFIX + path] = key
    return {_path(parameter): key for parameter, key in native.items()}


def text_encoder_keys(cond_stage_model: Any) -> dict[str, str]:
    """The key in a file of each layer of the CLIP text encoders, by path, in kohya's form: lora_te_, or lora_te1_ and
    so on where there are several. Not of a T5 or language model beside them: these are far larger than what a LoRA is
    for, and are left as they are.

    Raises:
        CrucibleError: there is no CLIP text encoder.
    """
    known = comfy.lora.model_lora_keys_clip(cond_stage_model, {})
    several = len({parameter.split(".")[0] for parameter in known.values()}) > 1
    kohya = re.compile(r"lora_te\d_" if several else r"lora_te_")
    keys = {_path(parameter): key for key, parameter in known.items() if kohya.match(key) and _is_of_clip(parameter)}
    if not keys:
        raise CrucibleError(
            "train_text_encoder is on, but this model's text encoder is no CLIP: it is a language model of its own "
            "size, which a LoRA does not need to change. Switch train_text_encoder off."
        )
    return keys


def _is_of_clip(parameter: str) -> bool:
    return parameter.split(".")[0] in ("clip_l", "clip_g", "clip_h")


def _path(parameter: str) -> str:
    return parameter.removeprefix(_PREFIX).removesuffix(".weight")


def verify(model: Any, clip: Any, path: Path, layers: int) -> None:
    """Read a saved LoRA as ComfyUI's loader does.

    Raises:
        CrucibleError: a key of the file, or a layer of the adapter, found no place in the model.
    """
    state_dict, _ = read_lora(path)
    converted = comfy.lora_convert.convert_lora(dict(state_dict))
    known = comfy.lora.model_lora_keys_unet(model, {})
    if any(is_of_text_encoder(key) for key in converted):
        known = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, known)
    loaded = comfy.lora.load_lora(converted, known, log_missing=False)
    matched = {key for adapter in loaded.values() for key in adapter.loaded_keys}
    unmatched = sorted(set(converted) - matched)
    if unmatched or len(loaded) != layers:
        raise CrucibleError(
            f"The LoRA {path} was saved, but ComfyUI's loader takes only {len(loaded)} of its {layers} layers"
            f"{': no place for ' + ', '.join(unmatched[:3]) if unmatched else ''}. Used as it is, it would have less "
            "effect than the training had. Please report this with the name of the base model."
        )
