"""peft's adapter layers: made, put on a model, and taken apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer as PeftLoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from .dropout import RowDropout, RowSeeds
from .spec import AdapterSpec, LayerSpec, choose_layers

ADAPTER_NAME = "default"


def inject(
    model: nn.Module, layers: Mapping[str, LayerSpec], dropout: float, key_of: Callable[[str], str], rows: RowSeeds
) -> dict[str, BaseTunerLayer]:
    """Replace layers of a model by peft's, and return these by path.

    Args:
        layers: what is trained on each layer, by path.
        dropout: how often an entry of an adapter's input is dropped, 0 to 1.
        key_of: a function from the path of a layer to its key in a file.
        rows: the seeds of the rows that the model computes, for dropout.
    """
    alike: dict[LayerSpec, list[str]] = {}
    for path, spec in layers.items():
        alike.setdefault(spec, []).append(path)
    for spec, paths in alike.items():
        inject_adapter_in_model(peft_config(spec, paths, dropout), model, adapter_name=ADAPTER_NAME)
        del model.peft_config
    injected = adapter_layers(model)
    for path, layer in injected.items():
        if dropout and isinstance(layer, PeftLoraLayer):
            layer.lora_dropout[ADAPTER_NAME] = RowDropout(dropout, key_of(path), rows)
    return injected


def peft_config(spec: LayerSpec, paths: Iterable[str], dropout: float = 0.0) -> PeftConfig:
    """Return peft's config for adapters on the layers with these paths."""
    # peft matches a list against the ends of paths, but a string as a regular expression against whole paths.
    shared: dict[str, Any] = {"r": spec.rank, "target_modules": "|".join(map(re.escape, paths))}
    if spec.algorithm == "loha":
        return LoHaConfig(alpha=spec.alpha, **shared)
    if spec.algorithm == "lokr":
        return LoKrConfig(alpha=spec.alpha, decompose_both=True, **shared)
    return LoraConfig(
        lora_alpha=spec.alpha,  # peft wants an int, but only multiplies by it, so kohya's fractional alphas work
        lora_dropout=dropout,
        bias="none",
        use_rslora=spec.algorithm == "rslora",
        use_dora=spec.algorithm == "dora",
        **shared,
    )


@dataclass(frozen=True)
class AdaptedLayer:
    """A layer made by peft, and a function that returns the frozen weight below it, patches applied, in float32."""

    adapter: BaseTunerLayer
    base_weight: Callable[[], Tensor]


def adapter_layers(module: nn.Module) -> dict[str, BaseTunerLayer]:
    """Return peft's layers inside a module, by path."""
    return {path: layer for path, layer in module.named_modules() if isinstance(layer, BaseTunerLayer)}


def adapter_parameters(layer: BaseTunerLayer) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the trained parameters of one of peft's layers, with the names of their parts: lora_A, hada_w1_a, …"""
    assert isinstance(layer, nn.Module)
    for name, parameter in layer.named_parameters():
        part = name.split(".")[0]
        if part != "base_layer":
            yield part, parameter


def delta_weight(layer: BaseTunerLayer) -> Tensor:
    """Compute what a LoRA layer adds to its weight before DoRA scales it, (out, in) or flattened to it, float32."""
    assert isinstance(layer, PeftLoraLayer)
    down, up = layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight
    return layer.scaling[ADAPTER_NAME] * (up.flatten(1) @ down.flatten(1))


@contextmanager
def adapted(
    model: nn.Module,
    spec: AdapterSpec,
    key_of: Callable[[str], str],
    rows: RowSeeds,
    modules: Iterable[tuple[str, nn.Module]] | None = None,
) -> Iterator[dict[str, AdaptedLayer]]:
    """Put peft's adapter layers on a model inside the context, with float32 weights, and yield them by file key.

    Args:
        model: the model.
        spec: the adapters to train.
        key_of: a function from the path of a layer to its key in a file.
        rows: the seeds of the rows that the model computes, for dropout.
        modules: the paths and modules that may get adapters; all of the model's by default.
    """
    chosen = choose_layers(spec, model.named_modules() if modules is None else modules, key_of)
    try:
        layers = inject(model, chosen, spec.dropout, key_of, rows)
        for layer in layers.values():
            for _, parameter in adapter_parameters(layer):
                parameter.data = parameter.data.float()
        yield {key_of(path): AdaptedLayer(layer, partial(_base_weight, layer)) for path, layer in layers.items()}
    finally:
        for path, layer in adapter_layers(model).items():
            model.set_submodule(path, layer.get_base_layer())
        model.__dict__.pop("peft_config", None)


def _base_weight(layer: Any) -> Tensor:
    """Return the frozen weight, in float32 also where it is held in 4 bits."""
    return dequantize_module_weight(layer.get_base_layer()).detach().float()
