"""Bake LoRAs into a checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import CrucibleError
from ..files.atomic import whole_file
from ..formats.architectures import Architecture
from ..formats.header import read_header
from ..formats.layer_names import kohya_key
from ..formats.names import Place, place_of
from ..formats.read_back import ROUNDINGS
from ..formats.spelling import flat, names_text_encoder
from ..formats.tensor_file import BYTES, data_of, header
from ..messages.wording import counted, listed, size_text
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
    """

    path: Path
    size: int
    changed: int

    def text(self) -> str:
        """Return the result as text for the user."""
        return f"Baked into {self.path} ({size_text(self.size)}): {self.changed} tensors changed."


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
        CrucibleError: the file is not a checkpoint, is quantized where it would change, or lacks a layer of the LoRAs;
            or the output cannot be written or is, read back, not what was computed.
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
        probes: dict[str, Tensor] = {}
        check = partial(_require_as_computed, output, probes)
        with whole_file(output, what="The checkpoint", size=size, check=check) as written:
            written.write(start)
            for number, name in enumerate(ordered):
                if progress is not None:
                    progress(number, len(ordered))
                tensor = file.get_tensor(name)
                if name in changes:
                    change = torch.zeros(tensor.shape)
                    for target in changes[name]:
                        _add_change(change, target, layers[target.place.key], name)
                    probes[name] = _probed(tensor) + _probed(change)
                    tensor = (tensor.float() + change).to(tensor.dtype)
                written.write(data_of(tensor))
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


def _has(layers: Mapping[str, JointLayer], target: _Target) -> bool:
    layer = layers.get(target.place.key)
    return layer is not None and (layer.has_bias if target.is_bias else layer.has_weight)


def _add_change(changes: Tensor, target: _Target, layer: JointLayer, name: str) -> None:
    """Add what a layer of the LoRAs changes to the changes of a checkpoint's tensor, in place."""
    change = layer.bias() if target.is_bias else layer.delta()
    assert change is not None
    rows = change[target.place.rows(len(change))]
    if target.place.reorder is not None:
        rows = rows[torch.argsort(target.place.reorder(torch.arange(len(rows))))]
    part = target.part_of(changes)
    if rows.numel() != part.numel():
        raise CrucibleError(
            f"{layer.names} cannot be baked into this checkpoint: {name} is {' x '.join(map(str, changes.shape))}, and "
            f"the change to {layer.key} is {' x '.join(map(str, change.shape))}. It was made for a model of a "
            "different size; choose a checkpoint of that model."
        )
    part += rows.reshape(part.shape)


def _probed(tensor: Tensor) -> Tensor:
    """Return the product (out,) of a tensor (out, …) and a random vector that depends on the shape alone, float64."""
    rows = tensor.reshape(len(tensor), -1)
    wide = torch.float64 if tensor.element_size() > 2 else torch.float32
    return (rows.to(wide) @ _vector(rows.shape[1]).to(wide)).double()


def _vector(size: int) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _require_as_computed(output: Path, probes: Mapping[str, Tensor], written: Path) -> None:
    """Read a checkpoint back and check that each changed tensor is the old one plus the change, to its rounding.

    Raises:
        CrucibleError: a tensor is not.
    """
    wrong = []
    with safe_open(written, "pt") as file:
        for name, expected in probes.items():
            tensor = file.get_tensor(name)
            rows = tensor.reshape(len(tensor), -1).float()
            deviation = (rows.square() @ _vector(rows.shape[1]).square().float()).sqrt().double()
            unit = max(torch.finfo(tensor.dtype).eps, torch.finfo(torch.float32).eps)
            least = torch.finfo(tensor.dtype).tiny * rows.shape[1] ** 0.5
            if not ((_probed(tensor) - expected).abs() <= ROUNDINGS * unit * (deviation + least)).all():
                wrong.append(name)
    if wrong:
        raise CrucibleError(
            f"The checkpoint was not saved to {output}: read back, {counted(len(wrong), 'tensor')} of {len(probes)} "
            f"changed ones {'is' if len(wrong) == 1 else 'are'} not what was computed ({listed(wrong)}). It would make "
            "other images than the LoRA does, so it was deleted. The disk or the memory may be faulty: try again with "
            "another folder, and if it happens again, please report it."
        )


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
    lacking = _lacking(changes, layers)
    if not lacking:
        return
    # The size says more than the names of layers that a model of another size has in part.
    name, targets = next(iter(changes.items()))
    _add_change(torch.zeros(tuple(entries[name][1])), targets[0], layers[targets[0].place.key], name)
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


def _lacking(changes: Mapping[str, Sequence[_Target]], layers: Mapping[str, JointLayer]) -> list[str]:
    """Return the layers of which the checkpoint lacks outputs or the bias."""
    placed: dict[tuple[str, bool], Fraction] = {}
    for target in (target for several in changes.values() for target in several):
        known = placed.get((target.place.key, target.is_bias), Fraction(0))
        placed[target.place.key, target.is_bias] = known + Fraction(target.place.count, target.place.of)
    return [
        key
        for key, layer in layers.items()
        if (layer.has_weight and placed.get((key, False), 0) < 1) or (layer.has_bias and placed.get((key, True), 0) < 1)
    ]


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
    else:  # a parameter of its own, such as a modulation
        yield _Target(Place(kohya_key(flat(tensor))))
