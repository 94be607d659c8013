"""Bake LoRAs into a checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import CrucibleError
from ..files.atomic import whole_file
from ..formats.adapter_keys import names_text_encoder
from ..formats.architectures import Architecture
from ..formats.header import read_header
from ..formats.layer_names import kohya_key
from ..formats.names import Place, flat, place_of
from ..formats.tensor_file import BYTES, data_of, header
from ..messages.wording import size_text
from .merge import BaseWeight, Ingredient, JointLayer, layers_of_all
from .recipe import Recipe

_FLOATS = ("F64", "F32", "F16", "BF16")
"""The types of checkpoint weights that changes can be added to."""


@dataclass(frozen=True)
class Baked:
    """The result of baking LoRAs into a checkpoint.

    Attributes:
        path, size: the new file, and its size in bytes.
        changed: the number of tensors that were changed.
        unplaced: the keys of the LoRAs' layers that the checkpoint does not have.
    """

    path: Path
    size: int
    changed: int
    unplaced: tuple[str, ...]

    def text(self) -> str:
        """Return the result as text for the user."""
        lines = [f"Baked into {self.path} ({size_text(self.size)}): {self.changed} tensors changed."]
        if self.unplaced:
            some = ", ".join(self.unplaced[:3])
            lines.append(f"Skipped, because the checkpoint has no such layer: {len(self.unplaced)} ({some}).")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Target:
    """A range of rows of a checkpoint's tensor, and the outputs of a layer that they correspond to.

    Attributes:
        place: the outputs of the layer.
        first, of: the range of rows, which starts at first/of and covers 1/of of them.
        is_bias: whether the tensor is the layer's bias rather than its weight.
        transposed: whether the tensor stores rows as columns.
    """

    place: Place
    first: int = 0
    of: int = 1
    is_bias: bool = False
    transposed: bool = False

    def part_of(self, tensor: Tensor) -> Tensor:
        """Return these rows of the tensor as a view."""
        rows = tensor.T if self.transposed else tensor
        return rows[self.first * len(rows) // self.of : (self.first + 1) * len(rows) // self.of]


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
        CrucibleError: the file is not a checkpoint, is quantized where it would change, has no layer of the LoRAs, or
            the output cannot be written.
    """
    found = read_header(checkpoint)
    targets = {name: list(_targets(name, architecture)) for name in found.entries}
    with safe_open(checkpoint, "pt") as file, base_weights(checkpoint, architecture) as base_weight:
        layers = {layer.key: layer for layer in layers_of_all(ingredients, recipe, base_weight)}
        changes = {
            name: kept
            for name, several in targets.items()
            if (kept := [target for target in several if _has(layers, target)])
        }
        _require_fitting(checkpoint, found.entries, changes, layers, architecture)
        entries = {
            name: (dtype, shape, BYTES[dtype] * math.prod(shape)) for name, (dtype, shape) in found.entries.items()
        }
        ordered = sorted(entries, key=lambda name: (-BYTES[entries[name][0]], name))
        own = {key: text for key, text in found.metadata.items() if key != "modelspec.hash_sha256"}
        start = header({name: entries[name] for name in ordered}, {**own, **metadata})
        size = len(start) + sum(count for _, _, count in entries.values())
        with whole_file(output, what="The checkpoint", size=size) as written:
            written.write(start)
            for number, name in enumerate(ordered):
                if progress is not None:
                    progress(number, len(ordered))
                tensor = file.get_tensor(name)
                for target in changes.get(name, ()):
                    tensor = _changed(tensor, target, layers[target.place.key], name)
                written.write(data_of(tensor))
    placed = {target.place.key for several in changes.values() for target in several}
    return Baked(output, size, len(changes), tuple(sorted(layers.keys() - placed)))


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


def _has(layers: Mapping[str, JointLayer], target: _Target) -> bool:
    layer = layers.get(target.place.key)
    return layer is not None and (layer.has_bias if target.is_bias else layer.has_weight)


def _changed(tensor: Tensor, target: _Target, layer: JointLayer, name: str) -> Tensor:
    change = layer.bias() if target.is_bias else layer.delta()
    assert change is not None
    rows = change[target.place.rows(len(change))]
    if target.place.reorder is not None:
        rows = rows[torch.argsort(target.place.reorder(torch.arange(len(rows))))]
    changed = tensor.to(torch.float32, copy=True)
    part = target.part_of(changed)
    if rows.numel() != part.numel():
        raise CrucibleError(
            f"{layer.names} cannot be baked into this checkpoint: {name} is {' x '.join(map(str, tensor.shape))}, and "
            f"the change to {layer.key} is {' x '.join(map(str, change.shape))}. It was made for a model of a "
            "different size; choose a checkpoint of that model."
        )
    part += rows.reshape(part.shape)
    return changed.to(tensor.dtype)


def _require_fitting(
    checkpoint: Path,
    entries: Mapping[str, tuple[str, Sequence[int]]],
    changes: Mapping[str, Sequence[_Target]],
    layers: Mapping[str, JointLayer],
    architecture: Architecture,
) -> None:
    if not changes:
        raise CrucibleError(
            f"{checkpoint.name} has none of the {len(layers)} layers that the LoRA changes, so nothing would be baked "
            f"into it. The LoRA is for {architecture.name}; choose a checkpoint of that architecture."
        )
    quantized = [name for name in changes if entries[name][0] not in _FLOATS]
    unknown = [name for name, (dtype, _) in entries.items() if dtype not in BYTES]
    for name in (*quantized, *unknown):
        raise CrucibleError(
            f"{checkpoint.name} is quantized: {name} is {entries[name][0]}, which is too coarse to keep what a LoRA "
            "adds. Use the checkpoint in fp16, bf16 or fp32."
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


def _targets(tensor: str, architecture: Architecture) -> Iterator[_Target]:
    """Yield the layers of LoRAs that change a checkpoint's tensor."""
    if tensor == _PROJECTION:
        yield _Target(Place("lora_te2_text_projection"), transposed=True)
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
                    yield _Target(place, number, 3, is_bias=kind == "in_proj_bias")
            return
    if kind in ("weight", "bias"):
        place = place_of(layer, architecture)
        if place is None and not names_text_encoder(layer):
            place = Place(kohya_key(flat(layer)))
        if place is not None:
            yield _Target(place, is_bias=kind == "bias")
