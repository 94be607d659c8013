"""Convert LoRA files from any trainer to layers in the format that this package uses in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import CrucibleError
from .adapter_keys import names_text_encoder, split_key, suffix_in_memory
from .delta import delta_weight, kind_of, scale_of
from .layer_names import kohya_key
from .lora_file import ALPHA, DORA_SCALE, DOWN, MIDDLE, UP, LayerTensors
from .names import Place, flat


@dataclass(frozen=True)
class Layers:
    """The layers of a LoRA.

    Attributes:
        layers: the tensors by key in memory and suffix.
        dotted: the dotted names that the file has for layers without a known name, by key in memory.
        leftover: keys of the file that do not belong to an adapter.
    """

    layers: dict[str, LayerTensors]
    dotted: dict[str, str] = field(default_factory=dict)
    leftover: list[str] = field(default_factory=list)


def read_layers(tensors: Mapping[str, Tensor], place_of: Callable[[str], Place | None]) -> Layers:
    """Sort a file's tensors into layers.

    A layer that the file stores in parts is joined exactly: as a LoRA or LoHa of a higher rank, or as a full difference
    if its method does not allow that (LoKr). Missing parts are zero.

    Args:
        tensors: the tensors by key, as any trainer writes them.
        place_of: a function that returns the place of a layer name: `names.place_of`, or ComfyUI's own map.

    Raises:
        CrucibleError: two keys are for the same weights, a layer is broken, or its parts cannot be joined.
    """
    adapters, leftover = split_keys(tensors)
    parts: dict[str, list[tuple[Place, LayerTensors]]] = {}
    dotted: dict[str, str] = {}
    for name, adapter in adapters.items():
        _require_whole(name, adapter)
        place = place_of(name)
        if place is None:
            place = Place(name if names_text_encoder(name) else kohya_key(flat(name)))
            if "." in name:
                dotted[place.key] = name
        parts.setdefault(place.key, []).append((place, adapter))
    return Layers({key: _joined(key, parts[key]) for key in sorted(parts)}, dotted, leftover)


def split_keys(tensors: Mapping[str, Tensor]) -> tuple[dict[str, LayerTensors], list[str]]:
    """Return the tensors by the layer's name in the file and suffix in memory, and the keys without a known suffix."""
    adapters: dict[str, LayerTensors] = {}
    leftover = []
    for key, tensor in tensors.items():
        parts = split_key(key)
        if parts is None:
            leftover.append(key)
            continue
        layer, suffix = adapters.setdefault(parts[0], {}), suffix_in_memory(parts[1])
        if suffix in layer:
            raise _twice(key)
        # PyTorch does not compute with one-byte floats.
        layer[suffix] = tensor.half() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor
    return adapters, leftover


def _require_whole(name: str, adapter: LayerTensors) -> None:
    """Check that the tensors of a layer are complete and fit together.

    Raises:
        CrucibleError: a tensor is missing, or does not fit the others.
    """
    shapes = {suffix: tensor if suffix == ALPHA else tensor.to("meta") for suffix, tensor in adapter.items()}
    shapes.pop(DORA_SCALE, None)
    if (DOWN in shapes) == (UP in shapes) and kind_of(shapes) == "other":
        return  # of an unknown method, which may well be complete
    try:
        delta_weight(shapes)
    except (KeyError, RuntimeError, IndexError, CrucibleError) as error:
        found = ", ".join(f"{suffix} {tuple(one.shape)}" for suffix, one in adapter.items())
        raise CrucibleError(
            f"{name} is broken: its tensors ({found}) do not form a layer, because one is missing or has the wrong "
            "shape. Download or copy the LoRA again."
        ) from error


def _joined(key: str, parts: Sequence[tuple[Place, LayerTensors]]) -> LayerTensors:
    if len(parts) == 1 and parts[0][0].is_whole and parts[0][0].reorder is None:
        return parts[0][1]
    taken = [False] * parts[0][0].of
    for place, _ in parts:
        if place.of != len(taken) or any(taken[place.first : place.first + place.count]):
            raise _twice(key)
        taken[place.first : place.first + place.count] = [True] * place.count
    kinds = {kind_of(adapter) for _, adapter in parts}
    if "other" in kinds or (kinds & {"dora"} and not (kinds == {"dora"} and all(taken))):
        raise CrucibleError(
            f"{key} is stored in parts ({', '.join(sorted(kinds))}) that cannot be joined without the base model, so "
            "the file cannot be used here. Look for a LoRA, LoHa or LoKr version, or convert the file with the "
            "program that made it."
        )
    if any(".diff_b" in adapter for _, adapter in parts):
        raise CrucibleError(
            f"{key} is stored in parts that have biases (diff_b), which no other program reads, so the file cannot be "
            "used here. Convert it with the program that made it."
        )
    adapters = [(place, _in_order(place, adapter)) for place, adapter in parts]
    if kinds <= {"lora", "dora"} and not any(MIDDLE in adapter for _, adapter in adapters):
        return _joined_loras(adapters)
    if kinds == {"loha"}:
        return _joined_lohas(adapters)
    return _joined_differences(adapters)


def _in_order(place: Place, adapter: LayerTensors) -> LayerTensors:
    """Return the adapter with its rows in the layer's order."""
    if place.reorder is None:
        return adapter
    by_output = {UP, DORA_SCALE, ".hada_w1_a", ".hada_w2_a", ".diff", ".w_norm", ".b_norm"}
    if kind_of(adapter) == "lokr":
        adapter = {".diff": delta_weight(adapter)}
    return {
        suffix: place.reorder(tensor) if suffix in by_output and tensor.shape[0] > 1 else tensor
        for suffix, tensor in adapter.items()
    }


def _total(parts: Sequence[tuple[Place, LayerTensors]], suffix: str) -> int:
    """Return the number of outputs of the whole layer, computed from one of its parts."""
    place, adapter = parts[0]
    return adapter[suffix].shape[0] * place.of // place.count


def _joined_loras(parts: Sequence[tuple[Place, LayerTensors]]) -> LayerTensors:
    downs = [adapter[DOWN] for _, adapter in parts]
    shared = all(torch.equal(down, downs[0]) for down in downs)
    down = downs[0] if shared else torch.cat(downs)
    total, dtype = _total(parts, UP), parts[0][1][UP].dtype
    up = torch.zeros(total, len(down), *parts[0][1][UP].shape[2:])
    joined: LayerTensors = {DOWN: down, UP: up}
    start = 0
    for place, adapter in parts:
        rank = len(adapter[DOWN])
        columns = slice(0, rank) if shared else slice(start, start + rank)
        up[place.rows(total), columns] = adapter[UP].float() * scale_of(adapter)
        start += rank
        if DORA_SCALE in adapter:
            dora = adapter[DORA_SCALE]
            whole = joined.setdefault(DORA_SCALE, torch.zeros(total, *dora.shape[1:], dtype=dora.dtype))
            whole[place.rows(total)] = dora
    joined[UP] = up.to(dtype)
    joined[ALPHA] = torch.tensor(float(len(down)))
    return joined


def _joined_lohas(parts: Sequence[tuple[Place, LayerTensors]]) -> LayerTensors:
    """Join parts into one LoHa, (A₁B₁) ∘ (A₂B₂): each A is block-diagonal, each B has those of the parts stacked."""
    total = _total(parts, ".hada_w1_a")
    rank = sum(adapter[".hada_w1_b"].shape[0] for _, adapter in parts)
    joined: LayerTensors = {ALPHA: torch.tensor(float(rank))}
    for number in (1, 2):
        a, b = f".hada_w{number}_a", f".hada_w{number}_b"
        whole, start = torch.zeros(total, rank), 0
        for place, adapter in parts:
            columns = slice(start, start + adapter[b].shape[0])
            whole[place.rows(total), columns] = adapter[a].float() * (scale_of(adapter) if number == 1 else 1.0)
            start = columns.stop
        joined[a] = whole.to(parts[0][1][a].dtype)
        joined[b] = torch.cat([adapter[b] for _, adapter in parts])
    return joined


def _joined_differences(parts: Sequence[tuple[Place, LayerTensors]]) -> LayerTensors:
    differences = [(place, delta_weight(adapter)) for place, adapter in parts]
    place, first = differences[0]
    total = first.shape[0] * place.of // place.count
    whole = torch.zeros(total, *first.shape[1:])
    for place, difference in differences:
        whole[place.rows(total)] = difference
    return {".diff": whole}


def _twice(key: str) -> CrucibleError:
    return CrucibleError(
        f"The file has the weights of {key} twice, under two names, so it is unclear which of them to use. It was "
        "probably combined from two files. Use one of those instead."
    )
