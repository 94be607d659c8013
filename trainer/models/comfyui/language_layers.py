"""The language models in a CLIP, and which of their layers the names in a language model's LoRA refer to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...formats.language_names import language_path
from ...formats.layer_names import language_key

_AROUND = re.compile(r"(?:(?:model|language_model|text_model|decoder)\.)+")
_BLOCK = re.compile(r"layers\.(\d+)\.")

Size = tuple[int | None, int | None]
"""The numbers of a layer's outputs and inputs; None for one that a LoRA does not reveal."""


@dataclass(frozen=True)
class LanguageModel:
    """A language model in a CLIP.

    Attributes:
        name: ComfyUI's name of the model, such as "Qwen3_4B".
        layers: the path in the CLIP of each linear layer and embedding, by `inner_path`.
        shapes: the numbers of outputs and inputs of each, by `inner_path`.
        is_cut: whether it lacks the last blocks of the model that was published, because images need only the first.
    """

    name: str
    layers: dict[str, str]
    shapes: dict[str, tuple[int, int]]
    is_cut: bool

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return 1 + max((number for path in self.layers if (number := block_of(path)) is not None), default=-1)

    def key_of(self, name: str) -> str | None:
        """Return ComfyUI's key of the layer that a name in a LoRA refers to; None if the model has no such layer."""
        path = inner_path(name)
        return None if path not in self.layers else f"text_encoders.{self.layers[path]}"

    def paths_by_key(self) -> dict[str, str]:
        """Return the path in the CLIP of each layer, by its key in memory."""
        return {language_key(start + path): full for path, full in self.layers.items() for start in ("", "model.")}


def inner_path(name: str) -> str:
    """Return the path of a language model's layer without the modules around the blocks, which programs call
    differently: "layers.0.self_attn.q_proj"; "" for any other name."""
    path = language_path(name)
    return "" if path is None else _AROUND.sub("", path, count=1)


def block_of(path: str) -> int | None:
    """Return the number of the block that a layer is in, by its `inner_path`; None if it is in none."""
    match = _BLOCK.match(path)
    return None if match is None else int(match[1])


def encoder_names(cond_stage_model: Any) -> list[str]:
    """Return ComfyUI's names of the text encoders in a CLIP, such as clip_l and Qwen3_4B."""
    return [
        _language_model(path, transformer).name if _is_language_model(transformer) else path.partition(".")[0]
        for path, transformer in _transformers(cond_stage_model).items()
    ]


def language_models_of(cond_stage_model: Any) -> list[LanguageModel]:
    """Return the language models in a CLIP; empty if its text encoders are of other kinds, such as CLIP-L or T5."""
    transformers = _transformers(cond_stage_model).items()
    return [_language_model(path, transformer) for path, transformer in transformers if _is_language_model(transformer)]


def _language_model(path: str, transformer: Any) -> LanguageModel:
    """Return the language model whose weights a module has.

    Args:
        path: the path of the module in the CLIP.
        transformer: the module.
    """
    layers, shapes = {}, {}
    for name, module in transformer.named_modules():
        if name and (shape := _shape(module)) is not None:
            inner = _AROUND.sub("", name, count=1) if _AROUND.match(name) else name
            layers[inner], shapes[inner] = f"{path}.{name}", shape
    model = getattr(transformer, "model", transformer)
    is_cut = getattr(model, "norm", None) is None
    return LanguageModel(class_name(transformer), layers, shapes, is_cut)


def class_name(transformer: nn.Module) -> str:
    """Return ComfyUI's name of a text encoder's class, such as "Qwen3_4B"."""
    # Classes that ComfyUI makes inside of functions have names that say nothing.
    kinds = (kind for kind in type(transformer).__mro__ if issubclass(kind, nn.Module))
    return next(kind.__name__ for kind in kinds if "<locals>" not in kind.__qualname__)


def _is_language_model(transformer: Any) -> bool:
    return hasattr(getattr(transformer, "model", transformer), "layers")


def _transformers(cond_stage_model: Any) -> dict[str, Any]:
    """Return the module with the weights of each text encoder in a CLIP, by its path."""
    if hasattr(cond_stage_model, "transformer"):
        return {"transformer": cond_stage_model.transformer}
    children = cond_stage_model.named_children()
    return {f"{name}.transformer": module.transformer for name, module in children if hasattr(module, "transformer")}


def best_fitting(models: Sequence[LanguageModel], sizes: Mapping[str, Size]) -> LanguageModel | None:
    """Return the language model with the most layers that a LoRA fits, the first of several; None if there are none.

    Args:
        models: the language models of a CLIP; a few CLIPs have two.
        sizes: the numbers of outputs and inputs of the LoRA's layers, by their names in the file.
    """
    by_path = {inner_path(name): size for name, size in sizes.items()}
    return max(models, key=lambda model: _fits(model, by_path), default=None)


def _fits(model: LanguageModel, sizes: Mapping[str, Size]) -> int:
    return sum(
        all(mine in (None, its) for mine, its in zip(size, model.shapes[path], strict=True))
        for path, size in sizes.items()
        if path in model.shapes
    )


def _shape(module: Any) -> tuple[int, int] | None:
    """Return a layer's numbers of outputs and inputs by its attributes; the tensor may be packed by quantization."""
    if hasattr(module, "in_features"):
        return module.out_features, module.in_features
    if hasattr(module, "num_embeddings"):
        return module.num_embeddings, module.embedding_dim
    return None
