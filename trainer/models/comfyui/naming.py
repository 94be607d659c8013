"""The names of a ComfyUI model's layers in memory and in LoRA files, taken from ComfyUI's own key map."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.model_sampling
import comfy.supported_models
import comfy.utils
import torch
from torch import Tensor

from ...adapters.targets import is_adaptable
from ...errors import CrucibleError
from ...formats.architectures import ARCHITECTURES, Architecture
from ...formats.layer_names import is_of_text_encoder
from ...formats.lora_file import read_lora
from ...formats.names import Place
from ...formats.names import place_of as place_in_table
from ...formats.portable import Part
from ...formats.spelling import flat, spellings
from .demo import CrucibleDemo

_PREFIX = "diffusion_model."

_BY_MODEL_CLASS = {
    "SDXL": "sdxl",
    "SD3": "sd3",
    "Flux": "flux1",
    "Flux2": "flux2",
    "Chroma": "chroma",
    "Lumina2": "lumina2",
    "QwenImage": "qwen_image",
    "AuraFlow": "auraflow",
    "PixArt": "pixart_sigma",
    "HunyuanDiT": "hunyuan_dit",
    "HiDream": "hidream",
    "CosmosPredict2": "cosmos_predict2",
    "Anima": "anima",
    "WAN21": "wan",
    "WAN22": "wan",
    "HunyuanVideo": "hunyuan_video",
    "LTXV": "ltxv",
}
"""The architecture of each class in `comfy.model_base`, by class name, because older versions of ComfyUI lack some."""


def architecture_of(model: Any) -> Architecture:
    """Return the row of the architecture table that a loaded model belongs to."""
    config, name = model.model_config, type(model).__name__
    if isinstance(config, CrucibleDemo):
        return ARCHITECTURES["demo"]
    # Exact classes only, because ComfyUI derives models with other layouts from these.
    if name in _BY_MODEL_CLASS:
        return ARCHITECTURES[_variant(_BY_MODEL_CLASS[name], config.unet_config)]
    if isinstance(config, comfy.supported_models.SD15):
        return ARCHITECTURES["sd15"]
    if isinstance(config, comfy.supported_models.SD20):
        velocity = isinstance(model.model_sampling, comfy.model_sampling.V_PREDICTION)
        return ARCHITECTURES["sd2_v" if velocity else "sd2"]
    return ARCHITECTURES["unknown"]


def _variant(architecture: str, config: dict[str, Any]) -> str:
    """Return the id of the actual architecture where several share a class in ComfyUI, from the model's config."""
    if architecture == "lumina2" and config.get("z_image_modulation"):
        return "z_image"
    if architecture == "pixart_sigma" and config.get("image_model") == "pixart_alpha":
        return "pixart_alpha"
    if architecture == "flux1" and config.get("yak_mlp"):  # Ovis-Image
        return "unknown"
    return architecture


def file_keys(model: Any, architecture: Architecture) -> dict[str, str]:
    """Return the key of each layer of `model.diffusion_model` that ComfyUI's loader recognises, by the layer's path.

    ComfyUI's map has several keys for each layer. The one chosen here is kohya's, built from the diffusers name for
    SD1.5 and SD2 and from the native name otherwise. For architectures saved in kohya's format, it is also the key in
    the file.
    """
    known = comfy.lora.model_lora_keys_unet(model, {})
    native = {
        parameter: key
        for key, parameter in known.items()
        if isinstance(parameter, str) and key == "lora_unet_" + _path(parameter).replace(".", "_")
    }
    if architecture.is_kohya and architecture.naming == "diffusers":
        for name, path in comfy.utils.unet_to_diffusers(model.model_config.unet_config).items():
            key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            if name.endswith(".weight") and key in known:
                native[_PREFIX + path] = key
    return {_path(parameter): key for parameter, key in native.items()}


def text_encoder_keys(cond_stage_model: Any) -> dict[str, str]:
    """Return the key in a LoRA file of each layer of the CLIP text encoders, by the layer's path.

    The keys are in kohya's format: they start with lora_te_, or with lora_te1_, lora_te2_ and so on if there are
    several text encoders. A T5 or language model beside them is far too large to be worth training, and is left out.

    Raises:
        CrucibleError: there is no CLIP text encoder.
    """
    keys = clip_keys(cond_stage_model)
    if not keys:
        raise CrucibleError(
            "train_text_encoder is on, but this model's text encoder is not CLIP. It is a large language model, which "
            "a LoRA does not need to change. Turn train_text_encoder off."
        )
    return keys


def clip_keys(cond_stage_model: Any) -> dict[str, str]:
    """Return the same keys as `text_encoder_keys`, or an empty dictionary if there is no CLIP text encoder."""
    known = comfy.lora.model_lora_keys_clip(cond_stage_model, {})
    several = len({parameter.split(".")[0] for parameter in known.values()}) > 1
    kohya = re.compile(r"lora_te\d_" if several else r"lora_te_")
    return {_path(parameter): key for key, parameter in known.items() if kohya.match(key) and _is_of_clip(parameter)}


def _is_of_clip(parameter: str) -> bool:
    return parameter.split(".")[0] in ("clip_l", "clip_g", "clip_h")


def parts_in_file(model: Any, architecture: Architecture) -> dict[str, list[Part]]:
    """Return where each layer is found in a file in PEFT's format, by the layer's key in memory.

    The names are from ComfyUI's map, so its loader finds everything that is saved. The map also shows where other
    programs split a layer into parts or store its rows in a different order.
    """
    known = comfy.lora.model_lora_keys_unet(model, {})
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    others: dict[str, dict[tuple[int, ...] | None, Part]] = {}
    for name, target in known.items():
        parameter, *slicing = target if isinstance(target, tuple) else (target,)
        if name.startswith(architecture.prefix) and parameter in shapes and name != parameter.removesuffix(".weight"):
            rows = _rows(shapes[parameter][0], *slicing)
            place = None if rows is None else (int(rows[0]), len(rows))
            others.setdefault(parameter, {}).setdefault(place, Part(name, rows))

    parts: dict[str, list[Part]] = {}
    for path, key in file_keys(model, architecture).items():
        parameter = f"{_PREFIX}{path}.weight"
        has_others = architecture.naming != "native" and parameter in others
        parts[key] = list(others[parameter].values()) if has_others else [Part(_PREFIX + path)]
    return parts


def place_of(model: Any, architecture: Architecture, cond_stage_model: Any = None) -> Callable[[str], Place | None]:
    """Return a function that finds the place of a LoRA file's layer name on a loaded model.

    It knows the names in the architecture's table and in ComfyUI's map, after any path of the model or without one,
    and returns None for others.

    Args:
        model: ComfyUI's `BaseModel`.
        architecture: the architecture of the model.
        cond_stage_model: the text encoders of the CLIP that belongs to the model; without it, only names of the
            diffusion model are found.
    """
    places = _places_on_model(model, architecture)
    if cond_stage_model is not None:
        places |= places_in_clip(cond_stage_model)
    by_spelling = {flat(name): place for name, place in places.items()}
    on_model = {place.key for place in places.values()}

    def find(name: str) -> Place | None:
        # The table comes first: ComfyUI's map splits Lumina 2's attention as if it had as many keys as queries.
        in_table = place_in_table(name, architecture)
        if in_table is not None and in_table.key in on_model:
            return in_table
        by_map = (by_spelling[spelling] for spelling in spellings(name) if spelling in by_spelling)
        return places.get(name) or next(by_map, in_table)

    return find


def places_in_clip(cond_stage_model: Any) -> dict[str, Place]:
    """Return the places in the CLIP text encoders by each name in ComfyUI's map."""
    keys = clip_keys(cond_stage_model)
    known = comfy.lora.model_lora_keys_clip(cond_stage_model, {})
    return {name: Place(keys[path]) for name, parameter in known.items() if (path := _path(parameter)) in keys}


def _places_on_model(model: Any, architecture: Architecture) -> dict[str, Place]:
    """Return the places on the diffusion model by each name in ComfyUI's map."""
    keys = file_keys(model, architecture)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    targets: dict[str, dict[str, tuple[Any, ...]]] = {}
    for name, target in comfy.lora.model_lora_keys_unet(model, {}).items():
        parameter, *slicing = target if isinstance(target, tuple) else (target,)
        if parameter in shapes and _path(parameter) in keys:  # the map may list layers that a model lacks
            targets.setdefault(parameter, {})[name] = (*slicing, None, None)[:2]
    places = {}
    for parameter, found in targets.items():
        key, total = keys[_path(parameter)], shapes[parameter][0]
        # The largest unit of rows that all parts of the layer are multiples of.
        unit = math.gcd(total, *(number for rows, _ in found.values() if rows for number in rows[1:]))
        for name, (rows, reorder) in found.items():
            _, start, length = rows or (0, 0, total)
            if rows is None and reorder is None:
                places[name] = Place(key)
            else:
                places[name] = Place(key, start // unit, length // unit, total // unit, reorder)
    return places


def layer_shapes(model: Any, architecture: Architecture, cond_stage_model: Any = None) -> dict[str, tuple[int, ...]]:
    """Return the weight shape of each layer that can carry an adapter, by the layer's key in memory.

    Args:
        model, architecture, cond_stage_model: as for `place_of`.
    """
    found = {}
    parts = [(model.diffusion_model, file_keys(model, architecture))]
    if cond_stage_model is not None:
        parts.append((cond_stage_model, clip_keys(cond_stage_model)))
    for module, keys in parts:
        for path, layer in module.named_modules():
            if path in keys and is_adaptable(layer):
                found[keys[path]] = weight_shape(layer)
    return found


def weight_shape(layer: Any) -> tuple[int, ...]:
    """Return a weight's shape from its layer's sizes; the tensor may be packed by quantization."""
    if hasattr(layer, "in_features"):
        return layer.out_features, layer.in_features
    return layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size


def _rows(
    count: int, place: tuple[int, int, int] | None = None, reorder: Callable[[Tensor], Tensor] | None = None
) -> Tensor | None:
    """Return the indices of the rows of a layer that a name in ComfyUI's map stands for, in the order of a file.

    Args:
        count: the number of rows of the layer.
        place: the dimension (always 0), start and length of a slice.
        reorder: a function that brings a file's rows into the order of the layer.

    Returns:
        The indices of the rows, or None for all of them in their usual order.
    """
    if reorder is not None:
        return torch.argsort(reorder(torch.arange(count)))
    if place is not None:
        _, start, length = place
        return torch.arange(start, start + length)
    return None


def _path(parameter: str) -> str:
    return parameter.removeprefix(_PREFIX).removesuffix(".weight")


def verify(model: Any, clip: Any, path: Path, layers: int) -> None:
    """Check that ComfyUI's loader finds every key of a saved LoRA.

    Args:
        model: ComfyUI's `BaseModel`; None for a LoRA of a CLIP alone.
        clip: the CLIP that belongs to the model.
        path: the saved LoRA.
        layers: the number of layers that were saved.

    Raises:
        CrucibleError: the loader does not recognise all keys of the file or all layers of the adapter.
    """
    state_dict, _ = read_lora(path)
    converted = comfy.lora_convert.convert_lora(dict(state_dict))
    known = {} if model is None else comfy.lora.model_lora_keys_unet(model, {})
    if any(is_of_text_encoder(key) for key in converted):
        known = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, known)
    loaded = comfy.lora.load_lora(converted, known, log_missing=False)
    matched = {key for adapter in loaded.values() for key in adapter.loaded_keys}
    unmatched = sorted(set(converted) - matched)
    # A layer that is split into parts in the file has several targets: its parameter with one slice each.
    found = {target if isinstance(target, str) else target[0] for target in loaded}
    if unmatched or len(found) != layers:
        raise CrucibleError(
            f"The LoRA {path} was saved, but ComfyUI's loader recognizes only {len(found)} of its {layers} layers"
            f"{': no match for ' + ', '.join(unmatched[:3]) if unmatched else ''}. Used as it is, it would have less "
            "effect than it was trained to have. Please report this with the name of the base model."
        )
