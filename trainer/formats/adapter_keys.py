"""The keys of LoRA files as trainers write them: layer and suffix, and what the suffixes tell of the adapter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

Shapes = Mapping[str, Sequence[int]]
"""The shape of each tensor of a file, by key."""

# The suffixes of kohya, diffusers (three generations), PEFT (with and without the adapter's name), LyCORIS and ComfyUI.
_SUFFIX = re.compile(
    r"[._](?:(?<=\.)|(?=lora\.))("
    r"lora_(?:up|down|mid)\.weight|lora\.(?:up|down)\.weight|lora_linear_layer\.(?:up|down)\.weight"
    r"|lora_[AB](?:\.\w+)??(?:\.weight|\.bias)?|lora_magnitude_vector(?:\.\w+)*?"
    r"|hada_\w+|lokr_\w+|[ab][12]\.weight|oft_\w+"
    r"|diff|diff_b|set_weight|w_norm|b_norm"
    r"|alpha|dora_scale|rescale|scalar|reshape_weight)\Z"
)
DIFFERENCES = frozenset({"diff", "diff_b", "set_weight", "w_norm", "b_norm"})
"""Suffixes of weights that are added or put in place as they are."""

_WITH_OTHERS = frozenset({"alpha", "dora_scale", "rescale", "scalar", "reshape_weight"})
"""Suffixes that make no adapter alone."""

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
    """Layer and suffix: ("lora_unet_mid_block_attn1_to_q", "lora_up.weight"). None for a key of no adapter."""
    match = _SUFFIX.search(key, 1)
    return match and (key[: match.start()], match[1])


def suffix_in_memory(suffix: str) -> str:
    """One name for what trainers call differently: ".lora_down.weight" for each name of a LoRA's first factor; others
    with a dot before them."""
    if not suffix.endswith(".bias"):
        for pattern, name in ((_DOWN, ".lora_down.weight"), (_UP, ".lora_up.weight")):
            if pattern.fullmatch(suffix):
                return name
    return f".{suffix}"


def is_adapter_key(key: str) -> bool:
    """Whether a tensor of this key changes a layer, rather than being a layer's own weight."""
    parts = split_key(key)
    return parts is not None and parts[1] not in _WITH_OTHERS


def names_text_encoder(key: str) -> bool:
    """Whether a key of any trainer names a layer of a text encoder."""
    return _TEXT_ENCODER.match(key) is not None


@dataclass(frozen=True)
class AdapterFacts:
    """
    Attributes:
        algorithms: "LoRA", "DoRA", "LoHa", …; a file can mix them.
        ranks, alphas: most frequent first. Ranks are empty where no tensor has one; alphas where the file has none,
            which means alpha = rank.
        layers: how many the file changes.
    """

    algorithms: tuple[str, ...]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    layers: int


def adapter_facts(shapes: Shapes, alphas: Iterable[float] = ()) -> AdapterFacts:
    """What the keys and shapes of a file tell.

    Args:
        alphas: the values of its `.alpha` tensors, which a header does not hold.
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
    """Outputs and inputs of each layer's weight, by layer, as far as the adapter's shapes tell them."""
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
    """Whether a tensor's shape begins with the outputs, and whether it ends with the inputs."""
    return (
        suffix in ("hada_w1_a", "diff") or _UP.fullmatch(suffix) is not None,
        suffix in ("hada_w1_b", "diff") or _DOWN.fullmatch(suffix) is not None,
    )


def _factor(tensors: Mapping[str, Sequence[int]], name: str) -> tuple[int, int] | None:
    """Outputs and inputs of one of LoKr's two factors, whole or itself of low rank."""
    whole, a, b = (tensors.get(name + end, ()) for end in ("", "_a", "_b"))
    if len(whole) >= 2:
        return int(whole[0]), int(whole[1])
    if len(a) >= 2 and len(b) >= 2:
        return int(a[0]), int(b[1])
    return None


def _frequent(counted: Counter) -> tuple:
    return tuple(value for value, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0])))
