"""Applying a LoRA to ComfyUI's MODEL and CLIP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.lora
import comfy.lora_convert
from torch import Tensor

from ...errors import CrucibleError
from ...formats.adapter_keys import DIFFERENCES, split_key, suffix_in_memory
from ...formats.architectures import Architecture
from ...formats.identify import architecture_names, candidates
from ...formats.spelling import names_text_encoder
from ...formats.universal import read_layers, with_wider_input
from .naming import architecture_of, place_of
from .patches import for_loader, with_peft_dora


@dataclass(frozen=True)
class Applied:
    """The result of applying a LoRA to a model.

    Attributes:
        model, clip: clones of the inputs with the LoRA applied. An input whose strength is 0 is returned unchanged,
            and None stays None.
        architecture: the architecture of the model.
        matched: the number of the LoRA's keys that match a weight of the model or CLIP.
        unmatched: the keys that match no weight.
        without_clip: the number of text encoder keys that were skipped because no CLIP is connected.
    """

    model: Any
    clip: Any
    architecture: Architecture
    matched: int
    unmatched: tuple[str, ...]
    without_clip: int


@dataclass(frozen=True)
class _Placed:
    """A state dict as read by ComfyUI's loader: patches by target weight, and which keys the loader recognised."""

    patches: dict[Any, Any]
    matched: int
    unmatched: tuple[str, ...]


def with_lora(
    model: Any, clip: Any, lora: Mapping[str, Tensor], strength_model: float, strength_clip: float
) -> Applied:
    """Apply a LoRA to MODEL and CLIP in the way of ComfyUI's built-in LoraLoader node.

    Raises:
        CrucibleError: none of the LoRA's keys match, or only a few that another architecture happens to share.
    """
    known = comfy.lora.model_lora_keys_unet(model.model, {})
    shapes = _shapes(model.model)
    if clip is not None:
        known = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, known)
        shapes |= _shapes(clip.cond_stage_model)
    name = getattr(lora, "name", "") or "The connected LoRA"
    architecture = architecture_of(model.model)
    placed = _place(name, comfy.lora_convert.convert_lora(dict(lora)), known, shapes)
    missing = [key for key in placed.unmatched if clip is not None or not names_text_encoder(key)]
    if missing and (renamed := _renamed(lora, model, clip, architecture)) is not None:
        placed = min(placed, _place(name, renamed, known, shapes), key=lambda one: len(one.unmatched))
    without_clip = [key for key in placed.unmatched if clip is None and names_text_encoder(key)]
    unmatched = tuple(key for key in placed.unmatched if key not in set(without_clip))
    if unmatched or not placed.matched:
        _require_fitting(name, lora, architecture, placed.matched, len(unmatched), len(without_clip))

    metadata = getattr(lora, "metadata", None)
    return Applied(
        model if strength_model == 0 else _patched(model, model, placed.patches, strength_model, metadata),
        clip
        if clip is None or strength_clip == 0
        else _patched(clip, clip.patcher, placed.patches, strength_clip, metadata),
        architecture,
        placed.matched,
        unmatched,
        len(without_clip),
    )


def _patched(
    owner: Any, patcher: Any, patches: dict[Any, Any], strength: float, metadata: Mapping[str, str] | None
) -> Any:
    clone = owner.clone()
    patcher = clone if owner is patcher else clone.patcher
    patcher.add_patches(patches, strength)
    if metadata:
        patcher.set_attachments("lora_metadata", metadata)
    return clone


def _renamed(lora: Mapping[str, Tensor], model: Any, clip: Any, architecture: Architecture) -> dict[str, Tensor] | None:
    """Rename a LoRA's keys to names that ComfyUI's loader recognises, for LoRAs in the naming of other programs.

    Returns:
        The renamed state dict, or None if the LoRA cannot be converted. Layers without a known name keep it.
    """
    try:
        read = read_layers(lora, place_of(model.model, architecture, clip and clip.cond_stage_model))
    except CrucibleError:
        return None
    read = with_wider_input(read, architecture)
    spelled = {}
    for key in lora:
        layer, suffix = split_key(key) or (key, "")
        if key.startswith(layer):
            spelled[layer, suffix_in_memory(suffix)] = key
    renamed = {key: lora[key] for key in read.leftover}
    for key, tensors in read.layers.items():
        name = read.dotted.get(key, "")
        for suffix, tensor in tensors.items():
            renamed[spelled.get((name, suffix), (name or key) + suffix)] = tensor
    return renamed


def _place(
    name: str, state_dict: dict[str, Tensor], known: dict[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> _Placed:
    state_dict, old_names, magnitudes = for_loader(state_dict)
    try:
        patches = comfy.lora.load_lora(state_dict, known, log_missing=False)
        patches = with_peft_dora(patches, magnitudes)
        fitting = {target: patch for target, patch in patches.items() if _fits(patch, target, shapes)}
    except (KeyError, IndexError, RuntimeError) as error:
        raise CrucibleError(
            f"{name} is broken: ComfyUI's loader cannot build a layer from its tensors ({error}). One tensor of a pair "
            "is missing or has the wrong shape. Download or copy the LoRA again."
        ) from error
    # Adapter patches record the keys they were loaded from; plain weight differences do not.
    of_adapters = set().union(*(getattr(patch, "loaded_keys", ()) for patch in patches.values()))
    matched = set()
    for key in state_dict:
        layer, suffix = split_key(key) or (key, "")
        taken = key in of_adapters or (suffix in DIFFERENCES and layer in known)
        if suffix in ("diff_b", "b_norm"):  # of which the loader takes b_norm only with w_norm
            bias = f"{str(known.get(layer)).removesuffix('.weight')}.bias"
            taken = bias in shapes and (suffix == "diff_b" or f"{layer}.w_norm" in state_dict)
        if taken and (known.get(layer) in fitting or known.get(layer) not in patches):
            matched.add(key)
    unmatched = sorted(old_names.get(key, key) for key in state_dict.keys() - matched)
    return _Placed(fitting, len(matched), tuple(unmatched))


def _shapes(module: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights by name, without quantized ones: those are packed into other shapes."""
    return {name: tuple(one.shape) for name, one in module.named_parameters() if one.is_floating_point()}


def _fits(patch: Any, target: Any, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether the weight difference of a patch is as large as its target weight.

    Matching names are not enough, because several architectures share them. ComfyUI would skip a patch of the wrong
    size as well, with only a line in its log.
    """
    weight, *slicing = (target,) if isinstance(target, str) else target
    size = _size(patch)
    if size is None or weight not in shapes:
        return True
    wanted = math.prod(shapes[weight])
    if slicing and slicing[0] is not None:
        dimension, _, length = slicing[0]
        wanted = wanted // shapes[weight][dimension] * length
    return size == wanted


def _size(patch: Any) -> int | None:
    """Return the number of values in a patch's weight difference, or None if its factors do not simply show it."""
    if isinstance(patch, tuple):
        kind, (difference, *_) = patch
        return difference.numel() if kind == "diff" else None
    if patch.name == "lora":
        up, down, _, mid, _, reshape = patch.weights
        return up.shape[0] * down[0].numel() if mid is None and reshape is None else None
    if patch.name == "loha":
        a, b, *_, t1, _, _ = patch.weights
        return a.shape[0] * b[0].numel() if t1 is None else None
    return None


def _require_fitting(
    name: str, lora: Mapping[str, Tensor], architecture: Architecture, matched: int, unmatched: int, without_clip: int
) -> None:
    """Raise if the LoRA is for another architecture, even if some names and sizes happen to match this one."""
    possible = candidates({key: tuple(tensor.shape) for key, tensor in lora.items()}, getattr(lora, "metadata", {}))
    other = bool(possible) and architecture.id != "unknown" and architecture not in possible
    if matched and not (other and matched < unmatched):
        return
    if without_clip and not unmatched:
        raise CrucibleError(
            f"{name} changes only the text encoder ({without_clip} keys), and no CLIP is connected, so it would have "
            "no effect. Connect the CLIP output of the loader that the model comes from."
        )
    count = matched + unmatched + without_clip
    raise CrucibleError(
        f"{name} does not fit this model: it was made for {architecture_names(possible)}, and this model is "
        f"{architecture.name}. {matched} of its {count} keys match this model, so it would "
        f"{'damage images rather than change them as intended' if matched else 'have no effect'}. Choose a LoRA for "
        "this model, or load the model that the LoRA was trained on."
    )
