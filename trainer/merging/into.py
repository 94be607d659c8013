"""Bake LoRAs into a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import CrucibleError
from ..formats.architectures import Architecture
from ..formats.header import read_header
from ..formats.layer_names import kohya_key
from ..formats.names import Place, place_of
from ..formats.spelling import flat, names_text_encoder
from ..formats.tensor_file import BYTES
from ..messages.wording import counted, listed
from .baking import FLOATS, Baked, Target, add_change, changes_of, lacking_layers, write_baked
from .merge import BaseWeight, Ingredient, JointLayer, layers_of_all
from .recipe import Recipe


@torch.no_grad()
def bake(
    checkpoint: Path,
    ingredients: Sequence[Ingredient],
    recipe: Recipe,
    architecture: Architecture,
    output: Path,
    metadata: Mapping[str, str],
    progress: Callable[[int, int], None] | None = None,
) -> Baked:
    """Add the changes of LoRAs to the weights of a checkpoint, and write the result tensor by tensor.

    The result is exact up to the checkpoint's precision with every method, because no rank is involved. Checkpoints in
    the original code's or ComfyUI's format, with or without CLIP text encoders, and single models of diffusers are
    supported.

    Args:
        checkpoint: the file to read, which stays unchanged.
        ingredients: the LoRAs and their strengths.
        recipe: how the LoRAs are merged.
        architecture: the architecture that the LoRAs are for.
        output: the file to write.
        metadata: entries to add to the checkpoint's own metadata.
        progress: a function called with the number of tensors written and of all tensors; it may raise to stop.

    Raises:
        CrucibleError: the file is not a checkpoint, is quantized where it would change, or lacks a layer of the LoRAs;
            or the output cannot be written or is, read back, not what was computed.
    """
    found = read_header(checkpoint)
    with base_weights(checkpoint, architecture) as base_weight:
        layers = {layer.key: layer for layer in layers_of_all(ingredients, recipe, base_weight)}
        changes = changes_of({name: list(_targets(name, architecture)) for name in found.entries}, layers)
        _require_fitting(checkpoint, found.entries, changes, layers, architecture)
        own = {key: text for key, text in found.metadata.items() if key != "modelspec.hash_sha256"}
        done = count()

        def stepped(_: str) -> None:
            if progress is not None:
                progress(next(done), len(found.entries))

        size = write_baked(found, output, changes, layers, {**own, **metadata}, what="The checkpoint", progress=stepped)
    return Baked(output, size, len(changes))


@contextmanager
def base_weights(checkpoint: Path, architecture: Architecture) -> Iterator[BaseWeight]:
    """Open a checkpoint and yield a function that returns a layer's weight, in float32, by the layer's key in memory.

    The function returns None for layers that the checkpoint does not have or stores in several tensors.
    """
    found = {
        target.place.key: (name, target)
        for name in read_header(checkpoint).entries
        for target in _targets(name, architecture)
        if target.place.is_whole and not target.is_bias
    }

    def base_weight(key: str) -> Tensor | None:
        if key not in found:
            return None
        name, target = found[key]
        return target.part_of(file.get_tensor(name)).float()

    with safe_open(checkpoint, "pt") as file:
        yield base_weight


def _require_fitting(
    checkpoint: Path,
    entries: Mapping[str, tuple[str, Sequence[int]]],
    changes: Mapping[str, Sequence[Target]],
    layers: Mapping[str, JointLayer],
    architecture: Architecture,
) -> None:
    if not changes:
        raise CrucibleError(
            f"{checkpoint.name} has none of the {len(layers)} layers that the LoRA changes, so nothing would be baked "
            f"into it. The LoRA is for {architecture.name}; choose a checkpoint of that architecture."
        )
    quantized = [name for name in changes if entries[name][0] not in FLOATS]
    unknown = [name for name, (dtype, _) in entries.items() if dtype not in BYTES]
    for name in (*quantized, *unknown):
        raise CrucibleError(
            f"{checkpoint.name} is quantized: {name} is {entries[name][0]}, which is too coarse to keep what a LoRA "
            "adds. Use the checkpoint in fp16, bf16 or fp32."
        )
    lacking = lacking_layers(changes, layers)
    if not lacking:
        return
    # The size says more than the names of layers that a model of another size has in part.
    name, targets = next(iter(changes.items()))
    add_change(torch.zeros(tuple(entries[name][1])), targets[0], layers[targets[0].place.key], name)
    if all(map(names_text_encoder, lacking)):
        todo = (
            "Choose a checkpoint that contains its text encoders, or bake the model's part alone by a strength of 0 on "
            "the text encoders: LORA.safetensors:1:0"
        )
    else:
        todo = "Choose a checkpoint of the model that the LoRA was trained on, or use the LoRA in Load LoRA"
    raise CrucibleError(
        f"{checkpoint.name} has no place for {counted(len(lacking), 'layer')} of {len(layers)} that the LoRA changes "
        f"({listed(lacking)}), so the result would do less than the LoRA does, and nothing was written. {todo}."
    )


_CLIPS = (
    ("cond_stage_model.transformer.", "text_encoder."),
    ("conditioner.embedders.0.transformer.", "text_encoder."),
    ("cond_stage_model.model.transformer.", "text_encoder."),
    ("conditioner.embedders.1.model.transformer.", "text_encoder_2."),
)
"""The prefixes of text encoders in checkpoints of SD1.5, SD2 and SDXL, and diffusers' prefixes for them."""

_PROJECTION = "conditioner.embedders.1.model.text_projection"
"""A layer that SDXL's second text encoder stores transposed."""

_OPEN_CLIP = {"attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_RESBLOCK = re.compile(r"(text_encoder(?:_2)?)\.resblocks\.(\d+)\.(.+)")


def _targets(tensor: str, architecture: Architecture) -> Iterator[Target]:
    """Yield the layers of LoRAs that change a checkpoint's tensor."""
    if tensor == _PROJECTION:
        yield Target(Place("lora_te2_text_projection"), transposed=True)
        return
    for start, name in _CLIPS:
        if tensor.startswith(start):
            tensor = name + tensor.removeprefix(start)
    layer, _, kind = tensor.rpartition(".")
    if match := _RESBLOCK.fullmatch(layer):
        inner = _OPEN_CLIP.get(match[3])
        start = f"{match[1]}.text_model.encoder.layers.{match[2]}"
        if inner is not None:
            layer = f"{start}.{inner}"
        elif match[3] == "attn" and kind.startswith("in_proj_"):
            for number, part in enumerate("qkv"):
                place = place_of(f"{start}.self_attn.{part}_proj", architecture)
                if place is not None:
                    yield Target(place, number, 3, is_bias=kind == "in_proj_bias")
            return
    if kind in ("weight", "bias"):
        place = place_of(layer, architecture)
        if place is None and not names_text_encoder(layer):
            place = Place(kohya_key(flat(layer)))
        if place is not None:
            yield Target(place, is_bias=kind == "bias")
    else:  # a parameter of its own, such as a modulation
        yield Target(Place(kohya_key(flat(tensor))))
