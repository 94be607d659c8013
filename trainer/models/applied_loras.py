"""LoRAs from files, with strengths, on a base model that is sampled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from ..adapters.spec import AdapterSpec
from ..errors import CrucibleError
from ..formats.delta import BIASES, kind_of, rank_of, scale_of
from ..formats.layer_names import is_of_text_encoder
from ..formats.lora_file import ALPHA, LayerTensors
from ..formats.universal import Layers, read_layers
from ..merging.ingredients import Strengths
from ..merging.merge import BaseWeight, Ingredient, merge
from ..merging.recipe import Recipe
from ..messages.wording import counted, listed
from .base import BaseModel
from .initial_lora import fits

_EXACT = 1_000_000
"""A rank at which merging loses nothing."""


def ingredient(one: Strengths, base_model: BaseModel) -> Ingredient:
    """Return a LoRA by the layers of a base model.

    Raises:
        CrucibleError: the model has no place for a part of it.
    """
    lora, shapes = read_layers(one.lora, base_model.place_of), base_model.layer_shapes()
    foreign = [key for key, layer in lora.layers.items() if key not in shapes or not fits(layer, shapes[key])]
    unread = [*foreign, *(key for key, layer in lora.layers.items() if layer.keys() & set(BIASES)), *lora.leftover]
    if unread:
        raise CrucibleError(
            f"{one.lora.name} cannot be used with {base_model.name}: the model has no place for "
            f"{counted(len(unread), 'part')} of it ({listed(unread)}), or has it in another size. What the model makes "
            "would not be what the LoRA was trained for. Name the base model that it was trained on.",
            "model",
        )
    return Ingredient(one.lora.name, lora, one.model, one.clip, one.digest)


def combined(loras: Sequence[Ingredient], base_weight: BaseWeight | None) -> dict[str, LayerTensors]:
    """Return layers that do what the LoRAs do together, float32.

    Args:
        loras: the LoRAs, at least one.
        base_weight: the base model's weights, for DoRAs whose strength is not 1 or which are not alone.
    """
    if len(loras) == 1:
        (one,) = loras
        kinds = {kind_of(layer) for layer in one.lora.layers.values()}
        whole = one.strength_model == one.strength_clip == 1
        if kinds <= {"lora", "loha", "lokr"} or (kinds <= {"lora", "dora", "loha", "lokr"} and whole):
            return {
                key: _scaled(layer, one.strength_clip if is_of_text_encoder(key) else one.strength_model)
                for key, layer in one.lora.layers.items()
            }
    merged: Layers = merge(loras, Recipe("linear", rank=_EXACT), base_weight).lora
    return merged.layers


def _scaled(layer: LayerTensors, strength: float) -> LayerTensors:
    floats = {suffix: tensor.float() for suffix, tensor in layer.items()}
    if strength == 1:
        return floats
    if rank := rank_of(layer):
        return floats | {ALPHA: torch.tensor(scale_of(layer) * rank * strength)}
    return floats | {".lokr_w1": floats[".lokr_w1"] * strength}


@contextmanager
def applied(base_model: BaseModel, layers: Mapping[str, LayerTensors], target_modules: str) -> Iterator[None]:
    """Let a base model work with these layers inside the context; its session must be open.

    Args:
        base_model: the base model.
        layers: the layers, by file key.
        target_modules: layers that get an adapter without effect in parts of the model that have none of `layers`.
    """
    spec = AdapterSpec(1, 1.0, 0.0, target_modules, text_encoder=any(map(is_of_text_encoder, layers)), start=layers)
    with base_model.attached(spec, False) as adapters:
        adapters.initialise(0)
        adapters.load(layers)
        with adapters.without_dropout():
            yield
