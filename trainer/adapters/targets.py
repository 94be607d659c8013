"""Choose which layers of a model to train, and at which rank."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import nn

from ..config.layer_patterns import LayerPattern
from ..errors import CrucibleError
from ..messages.suggestions import nearest_names
from .layer_kinds import is_attention, is_feed_forward

_ALSO_CALLED = {
    "q_proj": ("to_q", "q", "wq", "qkv", "qkv_proj", "query_key_value", "c_attn"),
    "k_proj": ("to_k", "k", "wk", "qkv", "qkv_proj", "query_key_value", "c_attn"),
    "v_proj": ("to_v", "v", "wv", "qkv", "qkv_proj", "query_key_value", "c_attn"),
    "o_proj": ("to_out.0", "to_out", "proj", "wo", "out", "out_proj", "dense", "c_proj"),
    "out_proj": ("to_out.0", "to_out", "proj", "wo", "out"),
    "up_proj": ("ff.net.0.proj", "mlp.0", "w1", "gate_up_proj", "dense_h_to_4h", "c_fc"),
    "gate_proj": ("ff.net.0.proj", "mlp.0", "w3", "gate_up_proj"),
    "down_proj": ("ff.net.2", "mlp.2", "w2", "dense_4h_to_h", "c_proj"),
}
"""Names of layers in Llama and Qwen, which many config files contain, and their names in image models and in language
models with fused layers or other names."""

SHOWN = 8
"""The number of layers that an error message lists."""


def is_adaptable(module: nn.Module) -> bool:
    """Return whether a LoRA can be put on this module.

    Checks attributes rather than the class, because ComfyUI's quantized linear layer is not an nn.Linear.
    """
    return hasattr(module, "in_features") or isinstance(module, nn.Conv2d)


def select_layers(
    modules: Iterable[tuple[str, nn.Module]], target_modules: str, patterns: Iterable[LayerPattern] = ()
) -> dict[str, LayerPattern]:
    """Select the layers to train, by path in the order of `modules`, with the pattern that chose each of them.

    If there are patterns, only they decide; the first one that matches a layer counts.

    Args:
        modules: the paths and modules of a model.
        target_modules: the kind of layers to train, as in the config.
        patterns: patterns of layer names; if empty, `target_modules` decides.

    Raises:
        CrucibleError: the model has no such layers, or a pattern matches none.
    """
    adaptable = {path: module for path, module in modules if is_adaptable(module)}
    patterns = tuple(patterns)
    if patterns:
        return _by_patterns(list(adaptable), patterns)
    paths = [path for path, module in adaptable.items() if _is_chosen(path, module, target_modules)]
    if not paths:
        raise CrucibleError(
            f"target_modules is {target_modules!r}, but this base model has no such layers, so nothing could be "
            f"trained. Layers that can have a LoRA: {_examples(adaptable)}. Choose another value for "
            "target_modules, or name layers in layer_patterns."
        )
    return {path: LayerPattern(path) for path in paths}


def _is_chosen(path: str, module: nn.Module, target_modules: str) -> bool:
    if target_modules == "linear_and_convolution":
        return True
    if isinstance(module, nn.Conv2d):
        return False
    if target_modules == "linear" or is_attention(path):
        return True
    return target_modules == "attention_and_feed_forward" and is_feed_forward(path)


def _by_patterns(paths: list[str], patterns: tuple[LayerPattern, ...]) -> dict[str, LayerPattern]:
    chosen: dict[str, LayerPattern] = {}
    for pattern in patterns:
        found = [path for path in paths if pattern.matches(path)]
        for name in _ALSO_CALLED.get(pattern.name, ()):
            other = LayerPattern(name)
            found = found or [path for path in paths if other.matches(path)]
        if not found:
            near = nearest_names(pattern.name, {path.rpartition(".")[2] for path in paths}, cutoff=0.6)
            hint = f"Is {near[0]} meant? " if near else ""
            raise CrucibleError(
                f"layer_patterns has {pattern.name!r} (a list under target_modules means the same), but no layer of "
                f"this base model has that name, so it would train nothing. {hint}Some of the model's {len(paths)} "
                f"layers: {_examples(paths)}. Write the end of such a name, or use * for any characters."
            )
        for path in found:
            chosen.setdefault(path, pattern)
    return {path: chosen[path] for path in paths if path in chosen}


def _examples(paths: Iterable[str] | Mapping[str, nn.Module]) -> str:
    """List names that differ in more than their numbers."""
    kinds: dict[str, str] = {}
    for path in paths:
        kinds.setdefault(re.sub(r"\d+", "*", path), path)
    return ", ".join(list(kinds.values())[:SHOWN]) or "none"
