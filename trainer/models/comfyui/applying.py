"""Applying a LoRA to ComfyUI's MODEL and CLIP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.lora
import comfy.lora_convert
from torch import Tensor

from ...errors import CrucibleError
from ...formats.adapter_keys import DIFFERENCES, layer_sizes, split_key, suffix_in_memory
from ...formats.architectures import ARCHITECTURES, Architecture
from ...formats.language_names import are_of_language_model
from ...formats.names import Place
from ...formats.spelling import names_text_encoder
from ...formats.universal import read_layers, with_wider_input
from .fitting import Match, Misfit, misfit, require_fitting, weight_shapes
from .fitting_clip import clip_name, require_fitting_clip, require_fitting_language_model
from .language_layers import LanguageModel, best_fitting, language_models_of
from .naming import architecture_of, place_of, places_in_clip
from .patches import for_loader, with_peft_dora


@dataclass(frozen=True)
class Applied:
    """The result of applying a LoRA to a model.

    Attributes:
        model, clip: clones of the inputs with the LoRA applied. An input whose strength is 0 is returned unchanged,
            and None stays None.
        architecture: the architecture of what the LoRA acts on: that of the model, "language" for a LoRA of a language
            model, or "unknown" for another LoRA on a CLIP alone.
        target: what its keys were compared with, as shown to users.
        matched: the number of the LoRA's keys that match a weight of the model or CLIP, or do not count.
        unmatched: the keys that match no weight of their size.
        without_clip, without_model: the numbers of keys that were skipped because no CLIP or no MODEL is connected.
    """

    model: Any
    clip: Any
    architecture: Architecture
    target: str
    matched: int
    unmatched: tuple[str, ...]
    without_clip: int
    without_model: int

    @property
    def of_language_model(self) -> bool:
        """Whether the LoRA is for a language model, which is a CLIP."""
        return self.architecture.id == "language"

    @property
    def on_clip_alone(self) -> bool:
        """Whether nothing but the CLIP is changed: by a language model's LoRA, or because no MODEL is connected."""
        return self.of_language_model or self.model is None


@dataclass(frozen=True)
class _Placed:
    """A LoRA as read by ComfyUI's loader.

    Attributes:
        patches: the patches by target weight.
        misfits: the layers whose names match, but not their sizes.
        unmatched: the LoRA's own keys that the loader did not recognise.
    """

    patches: dict[Any, Any]
    misfits: tuple[Misfit, ...]
    unmatched: tuple[str, ...]


_Origins = Mapping[str, Sequence[str]]
"""The keys of a LoRA that each key of its renamed state dict comes from."""


def with_lora(
    model: Any, clip: Any, lora: Mapping[str, Tensor], strength_model: float, strength_clip: float
) -> Applied:
    """Apply a LoRA to MODEL and CLIP in the way of ComfyUI's built-in LoraLoader node.

    Args:
        model, clip: the MODEL and the CLIP; one of them may be None.
        lora: the LoRA.
        strength_model, strength_clip: its strengths on each.

    Raises:
        CrucibleError: none of the LoRA's keys match, or only a few that another model happens to share.
    """
    known: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    if model is not None:
        known = comfy.lora.model_lora_keys_unet(model.model, known)
        shapes |= weight_shapes(model.model)
    if clip is not None:
        known = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, known)
        shapes |= weight_shapes(clip.cond_stage_model)
    name = getattr(lora, "name", "") or "The connected LoRA"
    sizes = layer_sizes({key: tuple(tensor.shape) for key, tensor in lora.items()})
    of_language = are_of_language_model(sizes)
    language = None if clip is None else best_fitting(language_models_of(clip.cond_stage_model), sizes)
    if language is not None:
        shapes |= {f"{language.layers[path]}.weight": shape for path, shape in language.shapes.items()}
    architecture = ARCHITECTURES["unknown"] if model is None else architecture_of(model.model)

    placed = _place(name, lora, *_converted(lora), known, shapes)
    missing = [key for key in placed.unmatched if clip is not None or not names_text_encoder(key)]
    problem = None
    if missing:
        try:
            renamed = _renamed(lora, model, clip, architecture, language)
        except CrucibleError as error:
            problem = error
        else:
            both = placed, _place(name, lora, *renamed, known, shapes)
            placed = min(both, key=lambda one: (len(one.unmatched), -len(one.misfits)))
    without = [key for key in placed.unmatched if _has_no_owner(key, model, clip, of_language)]
    unmatched = tuple(key for key in placed.unmatched if key not in set(without))
    matched = len(lora) - len(placed.unmatched)
    if unmatched or not matched:
        match = Match(matched, unmatched, len(without), placed.misfits, problem)
        if of_language:
            require_fitting_language_model(name, lora, clip, language, match)
        elif model is None:
            require_fitting_clip(name, lora, clip, match)
        else:
            require_fitting(name, lora, architecture, match)

    metadata = getattr(lora, "metadata", None)
    return Applied(
        model
        if model is None or strength_model == 0 or of_language
        else _patched(model, model, placed.patches, strength_model, metadata),
        clip
        if clip is None or strength_clip == 0
        else _patched(clip, clip.patcher, placed.patches, strength_clip, metadata),
        ARCHITECTURES["language"] if of_language else architecture,
        architecture.name if model is not None and not of_language else clip_name(clip),
        matched,
        unmatched,
        0 if clip is not None else len(without),
        0 if model is not None else len(without),
    )


def _has_no_owner(key: str, model: Any, clip: Any, of_language: bool) -> bool:
    """Return whether a LoRA's key is for the one of MODEL and CLIP that is not connected."""
    if model is not None and clip is not None:
        return False
    return (of_language or names_text_encoder(key)) == (clip is None)


def _patched(
    owner: Any, patcher: Any, patches: dict[Any, Any], strength: float, metadata: Mapping[str, str] | None
) -> Any:
    clone = owner.clone()
    patcher = clone if owner is patcher else clone.patcher
    patcher.add_patches(patches, strength)
    if metadata:
        patcher.set_attachments("lora_metadata", metadata)
    return clone


def _converted(lora: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], _Origins]:
    """Return a LoRA's state dict as ComfyUI's loader converts it, and the keys that each of its keys comes from."""
    converted = comfy.lora_convert.convert_lora(dict(lora))
    keys: dict[int, list[str]] = {}
    for key, tensor in lora.items():
        keys.setdefault(id(tensor), []).append(key)
    return converted, {key: [key] if key in lora else keys.get(id(tensor), []) for key, tensor in converted.items()}


def _renamed(
    lora: Mapping[str, Tensor], model: Any, clip: Any, architecture: Architecture, language: LanguageModel | None
) -> tuple[dict[str, Tensor], _Origins]:
    """Rename a LoRA's keys to names that ComfyUI's loader recognises, for LoRAs in the naming of other programs.

    Returns:
        The renamed state dict, in which layers without a known name keep it, and the keys that each of its keys comes
        from.

    Raises:
        CrucibleError: the LoRA cannot be converted.
    """
    find = _place_in(model, clip, architecture, language)
    read = with_wider_input(read_layers(lora, find), architecture)
    spelled = {}
    of_layers: dict[str, dict[str, str]] = {}
    for key in lora:
        layer, suffix = split_key(key) or (key, "")
        if key.startswith(layer):
            spelled[layer, suffix_in_memory(suffix)] = key
        place = find(layer)
        of_layers.setdefault(layer if place is None else place.key, {})[key] = suffix_in_memory(suffix)
    renamed = {key: lora[key] for key in read.leftover}
    origins = {key: [key] for key in lora}
    for layer, tensors in read.layers.items():
        name = read.dotted.get(layer, "")
        for suffix, tensor in tensors.items():
            key = spelled.get((name, suffix), (name or layer) + suffix)
            renamed[key] = tensor
            # A suffix that the layer in memory does not have is in the others.
            found = of_layers.get(name or layer, {}).items()
            origins.setdefault(key, [one for one, its in found if its == suffix or its not in tensors])
    return renamed, origins


def _place_in(
    model: Any, clip: Any, architecture: Architecture, language: LanguageModel | None
) -> Callable[[str], Place | None]:
    """Return a function that finds the place of a layer name on the model or in the CLIP, or returns None."""
    in_model: Callable[[str], Place | None]
    if model is None:
        in_model = places_in_clip(clip.cond_stage_model).get
    else:
        in_model = place_of(model.model, architecture, clip and clip.cond_stage_model)

    def find(name: str) -> Place | None:
        key = None if language is None else language.key_of(name)
        return in_model(name) if key is None else Place(key)

    return find


def _place(
    name: str,
    lora: Mapping[str, Tensor],
    state_dict: dict[str, Tensor],
    origins: _Origins,
    known: dict[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
) -> _Placed:
    state_dict, old_keys, magnitudes = for_loader(state_dict)
    try:
        patches = comfy.lora.load_lora(state_dict, known, log_missing=False)
        patches = with_peft_dora(patches, magnitudes)
        misfits = {target: found for target, patch in patches.items() if (found := misfit(patch, target, shapes))}
    except (KeyError, IndexError, RuntimeError) as error:
        raise CrucibleError(
            f"{name} is broken: ComfyUI's loader cannot build a layer from its tensors ({error}). One tensor of a pair "
            "is missing or has the wrong shape. Download or copy the LoRA again."
        ) from error
    # Adapter patches record the keys they were loaded from; plain weight differences do not.
    of_adapters = set().union(*(getattr(patch, "loaded_keys", ()) for patch in patches.values()))
    matched: set[str] = set()
    for key in state_dict:
        layer, suffix = split_key(key) or (key, "")
        taken = key in of_adapters or (suffix in DIFFERENCES and layer in known)
        if suffix in ("diff_b", "b_norm"):  # of which the loader takes b_norm only with w_norm
            bias = f"{str(known.get(layer)).removesuffix('.weight')}.bias"
            taken = bias in shapes and (suffix == "diff_b" or f"{layer}.w_norm" in state_dict)
        if taken and known.get(layer) not in misfits:
            for old in old_keys.get(key, [key]):
                matched.update(origins.get(old, ()))
    fitting = {target: patch for target, patch in patches.items() if target not in misfits}
    return _Placed(fitting, tuple(misfits.values()), tuple(sorted(lora.keys() - matched - _without_effect(lora))))


def _without_effect(lora: Mapping[str, Tensor]) -> set[str]:
    """Return the keys of layers that have an alpha alone, which changes nothing."""
    layers: dict[str, dict[str, str]] = {}
    for key in lora:
        if parts := split_key(key):
            layers.setdefault(parts[0], {})[key] = parts[1]
    return {key for keys in layers.values() if set(keys.values()) == {"alpha"} for key in keys}
