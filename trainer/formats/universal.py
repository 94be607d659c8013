"""Convert LoRA files from any trainer to layers in the format that this package uses in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import CrucibleError
from .adapter_keys import is_kohya_oft, split_key, suffix_in_memory
from .architectures import Architecture
from .delta import BIASES, delta_weight, kind_of, method_of, needs_base_weight, rank_of, scale_of, without_middle
from .layer_names import is_of_language_model, kohya_key
from .lora_file import ALPHA, BIAS, DORA_SCALE, DOWN, MAGNITUDE, RESHAPE, SET, UP, LayerTensors
from .names import Place
from .spelling import flat, names_text_encoder


@dataclass(frozen=True)
class Layers:
    """The layers of a LoRA.

    Attributes:
        layers: the tensors by key in memory and suffix.
        dotted: the dotted names that the file has for layers that are in no table, by key in memory.
        leftover: keys of the file that do not belong to an adapter.
    """

    layers: dict[str, LayerTensors]
    dotted: dict[str, str] = field(default_factory=dict)
    leftover: list[str] = field(default_factory=list)


def read_layers(tensors: Mapping[str, Tensor], place_of: Callable[[str], Place | None]) -> Layers:
    """Sort a file's tensors into layers.

    A layer that the file stores in parts is joined exactly: as a LoRA or LoHa of a higher rank, or as a full difference
    if its method does not allow that (LoKr). Missing parts are zero. A layer that has an alpha alone, which changes
    nothing, is left out.

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
        if adapter.keys() <= {ALPHA}:
            continue
        _require_whole(name, adapter)
        place = place_of(name)
        if place is None:
            place = Place(name if names_text_encoder(name) else kohya_key(flat(name)))
            if "." in name:
                dotted[place.key] = name
        elif "." in name and is_of_language_model(place.key):  # the key has lost the dots
            dotted[place.key] = name
        parts.setdefault(place.key, []).append((place, adapter))
    return Layers({key: _joined(key, parts[key]) for key in sorted(parts)}, dotted, leftover)


def split_keys(tensors: Mapping[str, Tensor]) -> tuple[dict[str, LayerTensors], list[str]]:
    """Return the tensors by the layer's name in the file and suffix in memory, and the keys without a known suffix."""
    adapters: dict[str, LayerTensors] = {}
    leftover, of_kohya_oft = [], []
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
        if suffix == ALPHA and is_kohya_oft(key):
            of_kohya_oft.append(parts[0])
    for name in of_kohya_oft:
        _count_once_per_output(adapters[name])
    for name, layer in adapters.items():
        _settle(name, layer)
    # ComfyUI reads control LoRAs of Black Forest Labs, whose first layer has more inputs than the model's, in this way.
    control = adapters.get("img_in", {})
    if DOWN in control and any(SET in layer for layer in adapters.values()):
        control.setdefault(RESHAPE, torch.tensor([control[UP].shape[0], control[DOWN].shape[1]]))
    return adapters, leftover


def _count_once_per_output(adapter: LayerTensors) -> None:
    """Turn the alpha of kohya's OFT, a limit that its trainer multiplies by the layer's outputs, into the limit."""
    blocks = adapter.get(".oft_blocks")
    if blocks is not None and blocks.ndim == 3:
        adapter[ALPHA] = adapter[ALPHA].float() * (blocks.shape[0] * blocks.shape[1])


def _settle(name: str, adapter: LayerTensors) -> None:
    """Give biases, magnitudes and an alpha that does not count the form that they have in memory."""
    if (bias := adapter.pop(_PEFT_BIAS, None)) is not None:
        if BIAS in adapter:
            raise _twice(f"the bias of {name}")
        adapter[BIAS] = (bias.float() * scale_of(adapter)).to(bias.dtype)
    if MAGNITUDE in adapter:
        adapter[MAGNITUDE] = adapter[MAGNITUDE].flatten()
    if ".b_norm" in adapter and ".w_norm" not in adapter and BIAS not in adapter:  # which ComfyUI only reads as a pair
        adapter[BIAS] = adapter.pop(".b_norm")
    # 9999999999, which ai-toolkit writes, is infinite in float16, and not every program reads a LoKr without an alpha.
    if ALPHA in adapter and kind_of(adapter) == "lokr" and rank_of(adapter) is None:
        adapter[ALPHA] = torch.ones_like(adapter[ALPHA])


_PEFT_BIAS = ".lora_B.bias"

_INPUTS_OF_FLUX = 64
"""The inputs of Flux.1's first layer: 16 latent channels in patches of 2 x 2."""


def with_wider_input(lora: Layers, architecture: Architecture) -> Layers:
    """Return the layers of a control LoRA for Flux.1 with the shape to which its first layer has to be enlarged.

    diffusers saves such LoRAs without it, and ComfyUI needs it.
    """
    first = lora.layers.get("lora_unet_img_in", {})
    if architecture.id != "flux1" or DOWN not in first or RESHAPE in first or first[DOWN].shape[1] <= _INPUTS_OF_FLUX:
        return lora
    shape = torch.tensor([first[UP].shape[0], first[DOWN].shape[1]])
    return replace(lora, layers=lora.layers | {"lora_unet_img_in": first | {RESHAPE: shape}})


def _require_whole(name: str, adapter: LayerTensors) -> None:
    """Check that the tensors of a layer are complete and fit together.

    Raises:
        CrucibleError: a tensor is missing, or does not fit the others.
    """
    shapes = {suffix: tensor if suffix == ALPHA else tensor.to("meta") for suffix, tensor in adapter.items()}
    shapes.pop(DORA_SCALE, None)
    magnitude = shapes.pop(MAGNITUDE, None)
    if shapes.keys() <= {*BIASES, ALPHA} and len(shapes) > (ALPHA in shapes) and magnitude is None:
        return  # only a bias
    if (DOWN in shapes) == (UP in shapes) and kind_of(shapes) == "other" and magnitude is None:
        return  # of an unknown method, which may well be complete
    try:
        delta = delta_weight(shapes)
        if magnitude is not None and magnitude.shape != delta.shape[:1]:
            raise RuntimeError("one magnitude per output is needed")
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
    adapters = [(place, _in_order(place, adapter)) for place, adapter in parts]
    biases = [(place, adapter.pop(BIAS)) for place, adapter in adapters if BIAS in adapter]
    joined: LayerTensors = {BIAS: _joined_tensors(biases)} if biases else {}
    adapters = [(place, adapter) for place, adapter in adapters if adapter.keys() - {ALPHA}]
    if not adapters:
        return joined
    scaled = [DORA_SCALE in adapter for _, adapter in adapters]
    kinds = {kind_of(adapter.keys() - {DORA_SCALE, MAGNITUDE}) for _, adapter in adapters}
    if (
        "other" in kinds
        or (any(scaled) and not (all(scaled) and all(taken)))
        or (any(needs_base_weight(adapter) for _, adapter in adapters) and kinds != {"lora"})
        or any(adapter.keys() & {".b_norm", RESHAPE} for _, adapter in adapters)
    ):
        methods = ", ".join(sorted({method_of(adapter) for _, adapter in adapters}))
        raise CrucibleError(
            f"{key} is stored in parts ({methods}) that cannot be joined without the base model, so the file cannot be "
            "used here. Look for a LoRA, LoHa or LoKr version, or convert the file with the program that made it."
        )
    if kinds == {"lora"}:
        return _joined_loras([(place, without_middle(adapter)) for place, adapter in adapters]) | joined
    if kinds == {"loha"} and not any(adapter.keys() & {".hada_t1", ".hada_t2"} for _, adapter in adapters):
        return _joined_lohas(adapters) | joined
    return {".diff": _joined_tensors([(place, delta_weight(adapter)) for place, adapter in adapters])} | joined


def _in_order(place: Place, adapter: LayerTensors) -> LayerTensors:
    """Return the adapter with its rows in the layer's order."""
    if place.reorder is None:
        return dict(adapter)
    by_output = {UP, DORA_SCALE, MAGNITUDE, *BIASES, ".hada_w1_a", ".hada_w2_a", ".diff", ".w_norm"}
    if kind_of(adapter) == "lokr" or adapter.keys() & {".hada_t1", ".hada_t2"}:
        biases = {suffix: adapter[suffix] for suffix in BIASES if suffix in adapter}
        adapter = {".diff": delta_weight(adapter)} | biases
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
        for suffix in {DORA_SCALE, MAGNITUDE} & adapter.keys():
            dora = adapter[suffix]
            whole = joined.setdefault(suffix, torch.full((total, *dora.shape[1:]), torch.nan, dtype=dora.dtype))
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


def _joined_tensors(parts: Sequence[tuple[Place, Tensor]]) -> Tensor:
    """Return the rows of all parts, (out, …), float32; zero where there is none."""
    place, first = parts[0]
    total = first.shape[0] * place.of // place.count
    whole = torch.zeros(total, *first.shape[1:])
    for place, rows in parts:
        whole[place.rows(total)] = rows.float()
    return whole


def _twice(key: str) -> CrucibleError:
    return CrucibleError(
        f"The file has the weights of {key} twice, under two names, so it is unclear which of them to use. It was "
        "probably combined from two files. Use one of those instead."
    )
