"""Parse the keys of LoRA files as trainers write them: layer, suffix, and the facts that they reveal."""

from __future__ import annotations

import math
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
    r"|hada_\w+|lokr_\w+|[ab][12]\.weight|oft_\w+(?:\.\d+)?"
    r"|diff|diff_b|diff_m|set_weight|w_norm|b_norm"
    r"|alpha|dora_scale|rescale|scalar|reshape_weight|(?<=_norm\.)scale)\Z"
)
_XLABS = re.compile(r"(.*\b(?:double|single)_blocks\.\d+)\.processor\.((?:qkv|proj)_lora[12]?)\.(down|up)\.weight")
"""A key as XLabs' trainer and USO write it: "double_blocks.0.processor.qkv_lora1.down.weight"."""

_XLABS_LAYERS = {
    "qkv_lora1": "img_attn.qkv",
    "qkv_lora2": "txt_attn.qkv",
    "proj_lora1": "img_attn.proj",
    "proj_lora2": "txt_attn.proj",
    "qkv_lora": "linear1_qkv",
    "proj_lora": "linear2",
}
_WITHOUT_PREFIX = re.compile(r".*?(?=(blocks[._]\d+|head)\Z)")
"""What stands before the part of Wan's model that a modulation belongs to."""

_KOHYA_OFT = "oft_"
"""The start of names in OFT files of kohya's trainer, "oft_unet_…" and "oft_te_…", instead of "lora_"."""
DIFFERENCES = frozenset({"diff", "diff_b", "set_weight", "w_norm", "b_norm"})
"""Suffixes of full tensors that are added to a weight or replace it, without any factorization."""

_WITH_OTHERS = frozenset({"alpha", "dora_scale", "rescale", "scalar", "reshape_weight", "scale"})
"""Suffixes that do not make an adapter on their own. "scale" is the weight of a norm in Black Forest Labs' names, which
their control LoRAs replace, and which their checkpoints have as well."""

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
    ("full difference", re.compile("|".join((*DIFFERENCES, "diff_m")))),
)


def split_key(key: str) -> tuple[str, str] | None:
    """Split a key into layer and suffix: ("lora_unet_mid_block_attn1_to_q", "lora_up.weight").

    Names that other programs spell in a way of their own get the usual one: XLabs' processors, modulations (`diff_m`)
    and kohya's OFT ("oft_unet_…"). Returns None for a key that does not belong to an adapter.
    """
    if ".processor." in key and (xlabs := _XLABS.fullmatch(key)):
        return f"{xlabs[1]}.{_XLABS_LAYERS[xlabs[2]]}", f"lora_{xlabs[3]}.weight"
    match = _SUFFIX.search(key, 1)
    if match is None:
        return None
    layer, suffix = key[: match.start()], match[1]
    if suffix == "diff_m":
        layer = f"diffusion_model.{_WITHOUT_PREFIX.sub('', layer).replace('s_', 's.')}.modulation"
    elif is_kohya_oft(key):
        layer = "lora_" + layer.removeprefix(_KOHYA_OFT)
    elif suffix == "scale" and not layer.startswith("diffusion_model."):
        layer = "diffusion_model." + layer
    return layer, suffix


def is_kohya_oft(key: str) -> bool:
    """Return whether a key is from an OFT file of kohya's trainer, whose alpha counts per output of the layer."""
    return key.startswith(("oft_unet_", "oft_te"))


def suffix_in_memory(suffix: str) -> str:
    """Return the name that this package uses for a suffix, whichever trainer wrote it.

    All names of a LoRA's two factors become ".lora_down.weight" and ".lora_up.weight", those of the bias that PEFT adds
    after them ".lora_B.bias"; any other suffix gets a leading dot.
    """
    if suffix.endswith(".bias"):
        return f".{suffix[: len('lora_B')]}.bias"
    for pattern, name in ((_DOWN, ".lora_down.weight"), (_UP, ".lora_up.weight")):
        if pattern.fullmatch(suffix):
            return name
    if suffix.startswith("lora_magnitude_vector"):
        return ".lora_magnitude_vector"
    return {"diff_m": ".diff", "scale": ".set_weight"}.get(suffix, f".{suffix}")


def is_adapter_key(key: str) -> bool:
    """Return whether a tensor with this key changes a layer, rather than being a layer's own weight."""
    parts = split_key(key)
    return parts is not None and parts[1] not in _WITH_OTHERS


def has_rank(suffix: str) -> bool:
    """Return whether the first dimension of a tensor with this suffix is the rank, by which alpha is divided."""
    return _RANK_FIRST.fullmatch(suffix) is not None


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
        alphas: the values of the file's `.alpha` tensors, which its header does not contain. One that is not finite
            does not count: such a file is only read if its layer has no rank.
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
    return AdapterFacts(tuple(names), _frequent(ranks), _frequent(Counter(filter(math.isfinite, alphas))), len(layers))


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
