"""The forms of LoRA files: from layers as they are in memory to the names that other programs read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from ..errors import CrucibleError
from .architectures import Architecture, Form
from .delta import BIASES, kind_of
from .layer_names import is_of_text_encoder
from .lora_file import DOWN, UP, LayerTensors, to_state_dict
from .names import layer_names
from .portable import Part, to_portable
from .universal import Layers

_READERS = {"diffusers": "diffusers", "peft": "PEFT"}


def to_form(
    lora: Layers, architecture: Architecture, form: Form, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The tensors of a file, in `dtype`.

    kohya: "lora_unet_…", lora_down, lora_up, alpha. The others have dots, lora_A and lora_B, and alpha multiplied into
    lora_B: "diffusion_model." and ComfyUI's names; "unet." or "transformer." and diffusers'; "base_model.model." and
    diffusers'. LoHa, LoKr and whole differences are in kohya's form in all of them: no reader knows another. A LoRA on
    the flattened weight of a UNet's convolution, which ComfyUI alone reads, becomes one on the convolution.

    Raises:
        CrucibleError: the form has no place for a layer or for its method, or a value does not fit into `dtype`.
    """
    # What is added to a parameter that is no weight is known by its dotted name alone.
    differences = {key: name for key, name in lora.dotted.items() if kind_of(lora.layers[key]) == "diff"}
    layers = {
        differences.get(key, key): _as_convolution(layer, architecture, key) for key, layer in lora.layers.items()
    }
    state_dict = to_state_dict(layers, dtype)
    if form == "kohya":
        for key, name in lora.dotted.items():
            if key not in differences and not name.startswith(_NATIVE):
                raise _unknown(key, architecture, form)
        return state_dict
    if form in _READERS:
        _require_plain(lora.layers, _READERS[form])
    if form == "peft" and len(_models(lora.layers)) > 1:
        raise CrucibleError(
            "This LoRA has parts for the text encoder, and a file in PEFT's form holds one model only. Choose the form "
            "diffusers, which has both."
        )
    parts = {key: list(_parts(key, layer, lora.dotted, architecture, form)) for key, layer in lora.layers.items()}
    return to_portable(state_dict, {key: found for key, found in parts.items() if found})


def _as_convolution(layer: LayerTensors, architecture: Architecture, key: str) -> LayerTensors:
    names = layer_names(architecture).get(key)
    if names is None or not names.kernel or kind_of(layer) != "lora" or layer[DOWN].ndim != 2:
        return layer
    down, up, kernel = layer[DOWN], layer[UP], names.kernel
    if down.shape[1] % kernel**2:  # of another model, as its reader will say
        return layer
    return layer | {DOWN: down.reshape(len(down), -1, kernel, kernel), UP: up.reshape(*up.shape, 1, 1)}


def _models(keys: Iterable[str]) -> set[str]:
    """Which models of a pipeline the layers are of: "lora_te1", …, and "" for the one that makes the picture."""
    return {key.partition("_text_")[0] if is_of_text_encoder(key) else "" for key in keys}


def _parts(
    key: str, layer: LayerTensors, dotted: Mapping[str, str], architecture: Architecture, form: Form
) -> Iterator[Part]:
    """Nothing for a layer that stays in kohya's form."""
    names = layer_names(architecture).get(key)
    if form == "auto" and names is None:  # whatever reads the file that it comes from
        if key in dotted:
            yield Part(dotted[key])
        return
    if form == "auto" and architecture.is_kohya:
        return
    if names is None:
        name = dotted.get(key, "")
        if not name.startswith(_NATIVE if form == "comfyui" else _DIFFUSERS):
            raise _unknown(key, architecture, form)
        yield Part(name)
        return
    if form == "comfyui" or (form == "auto" and architecture.naming == "native" and not is_of_text_encoder(key)):
        yield Part(names.native)
        return
    prefix = None
    if form == "peft":
        prefix = "base_model.model."
    elif form == "auto" and not is_of_text_encoder(key):
        prefix = architecture.prefix
    total = layer[UP].shape[0] if UP in layer else 0
    for name, place in names.diffusers:
        rows = None
        if place.reorder is not None:
            rows = torch.argsort(place.reorder(torch.arange(total)))
        elif not place.is_whole:
            rows = torch.arange(total)[place.rows(total)]
        yield Part(name if prefix is None else prefix + name.partition(".")[2], rows)


_NATIVE = ("diffusion_model.", "text_encoders.")
_DIFFUSERS = ("transformer.", "unet.", "text_encoder.", "text_encoder_2.", "text_encoder_3.")
"""What the names of the two forms start with."""


def _unknown(key: str, architecture: Architecture, form: Form) -> CrucibleError:
    return CrucibleError(
        f"{key} has no known name in the form {form} for {architecture.name}, so the file cannot be converted to it. "
        "Use the form auto, which keeps the names that are not known."
    )


def _require_plain(layers: Mapping[str, LayerTensors], reader: str) -> None:
    others = {str(kind_of(layer)) for layer in layers.values()} - {"lora"}
    if any(suffix in layer for layer in layers.values() for suffix in BIASES):
        others.add("diff_b")
    if others:
        raise CrucibleError(
            f"The file has {', '.join(sorted(others))} layers, and {reader} reads LoRA only, so it would act as "
            "another one. Make a LoRA of it first: python -m trainer resize FILE --rank 32 (of a DoRA: merge FILE "
            "--base MODEL)."
        )
