"""Add the changes of LoRAs to the tensors of a safetensors file, and write the result tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import CrucibleError
from ..files.atomic import whole_file
from ..formats.header import LoraHeader
from ..formats.names import Place
from ..formats.read_back import ROUNDINGS
from ..formats.tensor_file import BYTES, data_of, header
from ..messages.wording import counted, listed, size_text
from .merge import JointLayer

FLOATS = ("F64", "F32", "F16", "BF16")
"""The types of weights that changes can be added to."""


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
class Target:
    """A range of rows of a base model's tensor, and the outputs of a layer that they correspond to.

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


def changes_of(targets: Mapping[str, Sequence[Target]], layers: Mapping[str, JointLayer]) -> dict[str, list[Target]]:
    """Return the targets that the layers of the LoRAs change, by the name of the tensor."""
    found = {name: [target for target in several if _has(layers, target)] for name, several in targets.items()}
    return {name: several for name, several in found.items() if several}


def write_baked(
    source: LoraHeader,
    output: Path,
    changes: Mapping[str, Sequence[Target]],
    layers: Mapping[str, JointLayer],
    metadata: Mapping[str, str],
    *,
    what: str,
    progress: Callable[[str], None],
) -> int:
    """Write a copy of a safetensors file with the changes of LoRAs added, and return its size in bytes.

    Args:
        source: the file to read, which stays unchanged.
        output: the file to write.
        changes: what changes in which tensor.
        layers: the layers of the LoRAs, by key in memory.
        metadata: the metadata of the new file.
        what: a name for the content, the subject of the first sentence of an error.
        progress: a function called with the name of each tensor before it is written; it may raise to stop.

    Raises:
        CrucibleError: a change has another size than its tensor, or the output cannot be written or is, read back, not
            what was computed.
    """
    entries = {name: (dtype, shape, BYTES[dtype] * math.prod(shape)) for name, (dtype, shape) in source.entries.items()}
    ordered = sorted(entries, key=lambda name: (-BYTES[entries[name][0]], name))
    start = header({name: entries[name] for name in ordered}, metadata)
    size = len(start) + sum(count for _, _, count in entries.values())
    probes: dict[str, Tensor] = {}
    check = partial(_require_as_computed, output, probes)
    with safe_open(source.path, "pt") as file, whole_file(output, what=what, size=size, check=check) as written:
        written.write(start)
        for name in ordered:
            progress(name)
            tensor = file.get_tensor(name)
            if name in changes:
                change = torch.zeros(tensor.shape)
                for target in changes[name]:
                    add_change(change, target, layers[target.place.key], name)
                probes[name] = _probed(tensor) + _probed(change)
                tensor = (tensor.float() + change).to(tensor.dtype)
            written.write(data_of(tensor))
    return size


def _has(layers: Mapping[str, JointLayer], target: Target) -> bool:
    layer = layers.get(target.place.key)
    return layer is not None and (layer.has_bias if target.is_bias else layer.has_weight)


def add_change(changes: Tensor, target: Target, layer: JointLayer, name: str) -> None:
    """Add what a layer of the LoRAs changes to the changes of a base model's tensor, in place."""
    change = layer.bias() if target.is_bias else layer.delta()
    assert change is not None
    rows = change[target.place.rows(len(change))]
    if target.place.reorder is not None:
        rows = rows[torch.argsort(target.place.reorder(torch.arange(len(rows))))]
    part = target.part_of(changes)
    if rows.numel() != part.numel():
        raise CrucibleError(
            f"{layer.names} cannot be baked into this model: {name} is {' x '.join(map(str, changes.shape))}, and "
            f"the change to {layer.key} is {' x '.join(map(str, change.shape))}. It was made for a model of a "
            "different size; choose one of that size."
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
    """Read a file back and check that each changed tensor is the old one plus the change, to its rounding.

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
            f"The model was not saved to {output}: read back, {counted(len(wrong), 'tensor')} of {len(probes)} "
            f"changed ones {'is' if len(wrong) == 1 else 'are'} not what was computed ({listed(wrong)}). It would do "
            "something else than the LoRA does, so it was deleted. The disk or the memory may be faulty: try again "
            "with another folder, and if it happens again, please report it."
        )


def lacking_layers(changes: Mapping[str, Sequence[Target]], layers: Mapping[str, JointLayer]) -> list[str]:
    """Return the layers of which the base model lacks outputs or the bias."""
    placed: dict[tuple[str, bool], Fraction] = {}
    for target in (target for several in changes.values() for target in several):
        known = placed.get((target.place.key, target.is_bias), Fraction(0))
        placed[target.place.key, target.is_bias] = known + Fraction(target.place.count, target.place.of)
    return [
        key
        for key, layer in layers.items()
        if (layer.has_weight and placed.get((key, False), 0) < 1) or (layer.has_bias and placed.get((key, True), 0) < 1)
    ]
