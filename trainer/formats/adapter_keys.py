"""Parse the keys of LoRA files as trainers write them: layer, suffix, and the facts that they reveal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

Shapes = Mapping[str, Sequence[int]]
"""A mapping from each tensor's key in a file to the tensor's shape."""

# Suffixes written by kohya, diffusers (three generations), PEFT (with and without adapter name), LyCORIS and ComfyUI.
_SUFFIX = re.compile(
    r"[._](?:(?<=\.)|(?=lora\.))("
    r"lora_(?:up|down|mid)\.weight|lora\.(?:up|down)\.weight|lora_linear_layer\.(?:up|down)\.weight"
    r"|lora_[AB](?:\.\w+)??(?:\.weight|\.bias)?|lora_magnitude_vector(?:\.\w+)*?"
    r"|hada_\w+|lokr_\w+|[ab][12]\.weight|oft_\w+"
    r"|diff|diff_b|set_weight|w_norm|b_norm"
    r"|alpha|dora_scale|rescale|scalar|reshape_weight)\Z"
)
DIFFERENCES = frozenset({"diff", "diff_b", "set_weight", "w_norm", "b_norm"})
"""Suffixes of full tensors that are added to a weight or replace it, without any factorization."""

_WITH_OTHERS = frozenset({"alpha", "dora_scale", "rescale", "scalar", "reshape_weight"})
"""Suffixes that do not make an adapter on their own."""

_DOWN = re.compile(r"lora_down\.weight|lora_A(\.\w+)??(\.weight)?|lora(_linear_layer)?\.down\.weight")
_UP = re.compile(r"lora_up\.weight|lora_B(\.\w+)??(\.weight)?|lora(_linear_layer)?\.up\.weight")
_RANK_FIRST = re.compile(rf"{_DOWN.pattern}|hada_w1_b|lokr_w[12]_b|a1\.weight")
"""Suffixes of tensors whose first dimension is the rank."""

_ALGORITHMS = (
    ("LoRA", re.compile(r"lora[_.].*")),
    ("LoHa", re.compile(r"hada_.*")),
    ("LoKr", re.compile(r"lokr_.*")),
    ("GLoRA", re.compile(r"[ab][12]\.weight")),
    ("OFT", re.compile(r"oft_.*")),
    ("full difference", re.compile("|".join(DIFFERENCES))),
)
_TEXT_ENCODER = re.compile(r"(lora_(prior_)?te\d?_|text_encoders?(_\d)?\.|te\d?\.|(base_model\.model\.)?text_model\.)")


def split_key(key: str) -> tuple[str, str] | None:
    """Split a key into layer and suffix: ("lora_unet_mid_block_attn1_to_q", "lora_up.weight").

    Returns None for a key that does not belong to an adapter.
    """
    match = _SUFFIX.search(key, 1)
    return match and (key[: match.start()], match[1])


def suffix_in_memory(suffix: str) -> str:
    """Return the name that this package uses for a suffix, whichever trainer wrote it.

    All names of a LoRA's two factors become ".lora_down.weight" and ".lora_up.weight"; any other suffix gets a leading
    dot.
    """
    if not suffix.endswith(".bias"):
        for pattern, name in ((_DOWN, ".lora_down.weight"), (_UP, ".lora_up.weight")):
            if pattern.fullmatch(suffix):
                return name
    return f".{suffix}"


def is_adapter_key(key: str) -> bool:
    """Return whether a tensor with this key changes a layer, rather than being a layer's own weight."""
    parts = split_key(key)
    return parts is not None and parts[1] not in _WITH_OTHERS


def names_text_encoder(key: str) -> bool:
    """Return whether a key, as any trainer writes it, names a layer of a text encoder."""
    return _TEXT_ENCODER.match(key) is not None


@dataclass(frozen=True)
class AdapterFacts:
    """The algorithms, ranks, alphas and number of layers of a LoRA file.

    Attributes:
        algorithms: the names of the algorithms ("LoRA", "DoRA", "LoHa", …); a file can mix them.
        ranks, alphas: the values in use, most frequent first. `ranks` is empty if no tensor has a rank; `alphas` is
            empty if the file stores none, which means alpha = rank.
        layers: the number of layers that the file changes.
    """

    algorithms: tuple[str, ...]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    layers: int


def adapter_facts(shapes: Shapes, alphas: Iterable[float] = ()) -> AdapterFacts:
    """Collect the facts that the keys and shapes of a file reveal about its adapter.

    Args:
        shapes: the shape of each tensor, by key.
        alphas: the values of the file's `.alpha` tensors, which its header does not contain.
    """
    layers, ranks, algorithms = set(), Counter[int](), Counter[str]()
    decomposed = False
    for key, shape in shapes.items():
        parts = split_key(key)
        if parts is None:
            continue
        layer, suffix = parts
        decomposed = decomposed or suffix == "dora_scale" or suffix.startswith("lora_magnitude_vector")
        if suffix in _WITH_OTHERS:
            continue
        layers.add(layer)
        if _RANK_FIRST.fullmatch(suffix) and shape:
            ranks[int(shape[0])] += 1
        algorithm = next(name for name, pattern in _ALGORITHMS if pattern.fullmatch(suffix))
        # OFT's blocks are (blocks, size, size); BOFT has several such factors.
        algorithms["BOFT" if algorithm == "OFT" and suffix == "oft_blocks" and len(shape) == 4 else algorithm] += 1
    names = [name for name, _ in algorithms.most_common()]
    if decomposed:
        names = ["DoRA" if name == "LoRA" else f"{name} with weight decomposition" for name in names]
    return AdapterFacts(tuple(names), _frequent(ranks), _frequent(Counter(alphas)), len(layers))


def layer_sizes(shapes: Shapes) -> dict[str, tuple[int | None, int | None]]:
    """Return the numbers of outputs and inputs of each layer, by layer; None for one that the shapes do not reveal."""
    layers: dict[str, dict[str, Sequence[int]]] = {}
    for key, shape in shapes.items():
        if parts := split_key(key):
            layers.setdefault(parts[0], {})[parts[1]] = shape
    return {layer: _size(tensors) for layer, tensors in layers.items()}


def _size(tensors: Mapping[str, Sequence[int]]) -> tuple[int | None, int | None]:
    rows = columns = None
    of_products = False
    for suffix, shape in tensors.items():
        if len(shape) < 2:
            continue
        of_products = of_products or suffix.startswith("lokr_")
        gives_rows, gives_columns = _gives(suffix)
        if gives_rows:
            rows = int(shape[0])
        if gives_columns:
            columns = int(shape[1])
    if of_products and (first := _factor(tensors, "lokr_w1")) and (second := _factor(tensors, "lokr_w2")):
        rows, columns = first[0] * second[0], first[1] * second[1]
    return rows, columns


@lru_cache(maxsize=256)
def _gives(suffix: str) -> tuple[bool, bool]:
    """Return whether the first dimension of a tensor is the layer's outputs, and whether the second is its inputs."""
    return (
        suffix in ("hada_w1_a", "diff") or _UP.fullmatch(suffix) is not None,
        suffix in ("hada_w1_b", "diff") or _DOWN.fullmatch(suffix) is not None,
    )


def _factor(tensors: Mapping[str, Sequence[int]], name: str) -> tuple[int, int] | None:
    """Return the numbers of outputs and inputs of one of LoKr's two factors, stored whole or as a low-rank product."""
    whole, a, b = (tensors.get(name + end, ()) for end in ("", "_a", "_b"))
    if len(whole) >= 2:
        return int(whole[0]), int(whole[1])
    if len(a) >= 2 and len(b) >= 2:
        return int(a[0]), int(b[1])
    return None


def _frequent(counted: Counter) -> tuple:
    return tuple(value for value, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0])))
