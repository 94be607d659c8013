"""Adapters, the weights that are trained on chosen layers: LoRA and its relatives, as peft makes them.

Base models name their layers by module path ("down_blocks.0.attentions.0.….to_q"); files name them by key
("lora_unet_down_blocks_0_…"). `Adapters` holds peft's layers by file key, which is the same for both kinds of base
model, so the same seed gives the same weights on either.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, cast

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer as PeftLoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ..config import ResolvedConfig
from ..config.layer_patterns import LayerPattern, parse_patterns
from ..formats.delta import rank_of, scale_of
from ..formats.layer_names import is_of_text_encoder
from ..formats.lora_file import ALPHA, DORA_SCALE, DOWN, UP, LayerTensors
from ..formats.universal import kind_of
from ..seeding import generator
from .dropout import RowDropout, RowSeeds
from .targets import is_adaptable, select_layers

ADAPTER_NAME = "default"

Algorithm = Literal["lora", "rslora", "dora", "loha", "lokr"]

_ZERO_AT_FIRST = ("lora_B", "hada_w2_b", "lokr_w2", "lokr_w2_b")
"""The factors that start at zero, one for each algorithm, so that at step 0 the model equals the base model."""

_MAGNITUDE = "lora_magnitude_vector"
_SUFFIXES = {"lora_A": DOWN, "lora_B": UP}
"""The suffixes in files for parts of peft's layers; all other parts have the same names, LyCORIS's, in files too."""


@dataclass(frozen=True)
class AdapterSpec:
    """Settings that describe which adapters are trained.

    Attributes:
        rank, alpha: the rank, and the alpha that scales the adapter's output by alpha / rank (alpha / sqrt(rank) for
            rslora).
        dropout: the share of the adapter's inputs that is dropped, 0 to 1; not for loha and lokr.
        target_modules: the kind of layers to train if there are no `patterns`.
        algorithm: lora (Hu et al. 2021, arXiv:2106.09685), rslora (Kalajdzievski 2023, arXiv:2312.03732), dora (Liu et
            al. 2024, arXiv:2402.09353), loha (Hyeon-Woo et al. 2021, arXiv:2108.06098), lokr (Yeh et al. 2023,
            arXiv:2309.14859).
        patterns: the layers to train by name, with their own ranks and alphas.
        text_encoder: whether the text encoders are trained too.
        start: the layers of a LoRA to continue from, by file key. A model that has some of them gets adapters on these
            only, each with its own algorithm, rank and alpha.
    """

    rank: int
    alpha: float
    dropout: float
    target_modules: str
    algorithm: Algorithm = "lora"
    patterns: tuple[LayerPattern, ...] = ()
    text_encoder: bool = False
    start: Mapping[str, LayerTensors] = field(default_factory=dict)

    @classmethod
    def of(cls, config: ResolvedConfig, start: Mapping[str, LayerTensors] | None = None) -> AdapterSpec:
        """Create the spec that a config asks for."""
        return cls(
            config.lora_rank,
            config.lora_alpha,
            config.lora_dropout,
            config.target_modules,
            config.algorithm,
            parse_patterns(config.layer_patterns),
            config.train_text_encoder,
            start or {},
        )

    @property
    def of_text_encoder(self) -> AdapterSpec:
        """The spec for the text encoders: always all attention and feed-forward layers, as in kohya's trainer."""
        return replace(self, target_modules="attention_and_feed_forward", patterns=())


@dataclass(frozen=True)
class LayerSpec:
    """Settings of the adapter on one layer; for their meaning see `AdapterSpec`."""

    algorithm: Algorithm
    rank: int
    alpha: float


def choose_layers(
    spec: AdapterSpec, modules: Iterable[tuple[str, nn.Module]], key_of: Callable[[str], str]
) -> dict[str, LayerSpec]:
    """Choose the layers that get adapters, by path in the order of `modules`.

    Args:
        spec: the adapters to train.
        modules: the paths and modules of a model.
        key_of: a function that returns the key in a file for a layer's path.

    Raises:
        CrucibleError: as `select_layers`.
    """
    modules = list(modules)
    keys = {path: key_of(path) for path, module in modules if is_adaptable(module)} if spec.start else {}
    going_on = {path: _spec_of(spec.start[key]) for path, key in keys.items() if key in spec.start}
    if going_on:
        return going_on
    chosen = select_layers(modules, spec.target_modules, spec.patterns)
    return {
        path: LayerSpec(spec.algorithm, pattern.rank or spec.rank, pattern.alpha or spec.alpha)
        for path, pattern in chosen.items()
    }


def _spec_of(adapter: LayerTensors) -> LayerSpec:
    rank = rank_of(adapter) or 1  # a LoKr of two whole matrices has no rank and ignores it
    return LayerSpec(cast(Algorithm, kind_of(adapter)), rank, rank * scale_of(adapter))


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


class Adapters:
    """The trained weights of a run: adapted layers by file key."""

    def __init__(self, layers: Mapping[str, AdaptedLayer]) -> None:
        self._layers = dict(sorted(layers.items()))
        for layer in self._layers.values():
            _ignore_alpha_of_full_matrices(layer.adapter)

    def __len__(self) -> int:
        return len(self._layers)

    @property
    def size(self) -> int:
        """The number of values that are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        """The device that the trained weights are on."""
        return self.parameters()[0].device

    def parameters(self, of_text_encoder: bool | None = None) -> list[nn.Parameter]:
        """Return the parameters of the text encoders (True), of the model itself (False), or of both (None)."""
        return [
            parameter
            for key, _, parameter in self.named_parameters()
            if of_text_encoder in (None, is_of_text_encoder(key))
        ]

    def named_parameters(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        """Yield the file key, part (lora_A, hada_w1_a, …) and weight of each trained parameter."""
        for key, layer in self._layers.items():
            for part, parameter in adapter_parameters(layer.adapter):
                yield key, part, parameter

    @contextmanager
    def without_dropout(self) -> Iterator[None]:
        """Disable dropout for sampling and measuring, so that the adapters act like the finished LoRA."""
        layers = [layer.adapter for layer in self._layers.values() if isinstance(layer.adapter, nn.Module)]
        for layer in layers:
            layer.eval()
        try:
            yield
        finally:
            for layer in layers:
                layer.train()

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Initialize all factors randomly (Kaiming uniform, as peft and kohya do) but one, which is set to zero.

        So at step 0 the model equals the base model. Each layer's values only depend on the seed and its file key.
        """
        for key, layer in self._layers.items():
            for part, parameter in adapter_parameters(layer.adapter):
                if _decides_effect(part):
                    parameter.copy_(_without_effect(layer, part, parameter))
                else:
                    purpose = ("init", key) if part == "lora_A" else ("init", key, part)
                    fresh = torch.empty(parameter.shape)
                    nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator(seed, *purpose))
                    parameter.copy_(fresh)

    @torch.no_grad()
    def load(self, layers: Mapping[str, LayerTensors]) -> None:
        """Load weights as `layers` returns them; layers that are not among them stay unchanged.

        LoHa and LoKr also take over the factorization of the file, which replaces their parameters. Call this before
        anything, such as an optimizer, holds the parameters.

        Args:
            layers: the layers of the `AdapterSpec` that these adapters were attached with.
        """
        for key, tensors in layers.items():
            layer = self._layers[key]
            if not isinstance(layer.adapter, PeftLoraLayer):
                _factorise(layer.adapter, tensors)
            parameters = dict(adapter_parameters(layer.adapter))
            magnitude = parameters.pop(_MAGNITUDE, None)
            for part, parameter in parameters.items():
                parameter.copy_(tensors[_SUFFIXES.get(part, f".{part}")].view(parameter.shape))
            if magnitude is not None:
                scale = tensors[DORA_SCALE].flatten().to(magnitude) / _ratio_of_norms(layer)
                magnitude.copy_(scale.view(magnitude.shape))

    @contextmanager
    def without_effect(self) -> Iterator[None]:
        """Make the model act like the base model, as if it had no adapters."""
        kept = []
        with torch.no_grad():
            for layer in self._layers.values():
                for part, parameter in adapter_parameters(layer.adapter):
                    if _decides_effect(part):
                        kept.append((parameter, parameter.detach().clone()))
                        parameter.copy_(_without_effect(layer, part, parameter))
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, weight in kept:
                    parameter.copy_(weight)

    @torch.no_grad()
    def round_to(self, dtype: torch.dtype) -> None:
        """Round the weights to what a file of `dtype` can store, so that the last samples show what is saved."""
        for layer in self._layers.values():
            ratio = _ratio_of_norms(layer) if _is_dora(layer.adapter) else None
            for part, parameter in adapter_parameters(layer.adapter):
                if part == _MAGNITUDE and ratio is not None:
                    in_file = ratio.view(parameter.shape)
                    parameter.copy_((parameter * in_file).to(dtype) / in_file)
                else:
                    parameter.copy_(parameter.to(dtype))

    @torch.no_grad()
    def layers(self) -> dict[str, LayerTensors]:
        """Return copies of the weights on the CPU, by file key and suffix."""
        return {key: _tensors(layer) for key, layer in self._layers.items()}


def _decides_effect(part: str) -> bool:
    return part == _MAGNITUDE or part in _ZERO_AT_FIRST


def _without_effect(layer: AdaptedLayer, part: str, parameter: Tensor) -> Tensor:
    """Return the value of a part at which the adapter changes nothing."""
    if part == _MAGNITUDE:
        return _row_norms(layer.base_weight()).view(parameter.shape)
    return torch.zeros_like(parameter)


def _factorise(adapter: Any, tensors: LayerTensors) -> None:
    """Give a LoHa or LoKr layer the factorization and the scale that a file has for it."""
    device = next(parameter for _, parameter in adapter_parameters(adapter)).device
    for part in adapter.adapter_layer_names:
        weights = getattr(adapter, part)
        if ADAPTER_NAME in weights:
            del weights[ADAPTER_NAME]
        if (tensor := tensors.get(f".{part}")) is not None:
            weights[ADAPTER_NAME] = nn.Parameter(torch.empty(tensor.shape, dtype=torch.float32, device=device))
    adapter.scaling[ADAPTER_NAME] = scale_of(tensors)


def _tensors(layer: AdaptedLayer) -> LayerTensors:
    tensors = {}
    for part, parameter in adapter_parameters(layer.adapter):
        if part == _MAGNITUDE:
            scale = parameter.flatten() * _ratio_of_norms(layer)
            shape = (-1, *[1] * (layer.base_weight().ndim - 1))
            tensors[DORA_SCALE] = scale.view(shape).to("cpu", copy=True)
        else:
            tensors[_SUFFIXES.get(part, f".{part}")] = parameter.detach().to("cpu", copy=True)
    if not _is_full(tensors):
        tensors[ALPHA] = torch.tensor(_alpha(layer.adapter))
    return tensors


def _ratio_of_norms(layer: AdaptedLayer) -> Tensor:
    """Compute ‖W‖ / ‖W + ΔW‖ of each output, (out,): DoRA files divide by the former, training by the latter."""
    weight = layer.base_weight()
    return _row_norms(weight) / _row_norms(weight + delta_weight(layer.adapter).view(weight.shape))


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


def _row_norms(weight: Tensor) -> Tensor:
    """Compute the norm of each output's weights, (out,), float32."""
    return torch.linalg.vector_norm(weight.flatten(1), dim=1, dtype=torch.float32)


def _is_dora(layer: BaseTunerLayer) -> bool:
    return any(part == _MAGNITUDE for part, _ in adapter_parameters(layer))


def _is_full(parts: Any) -> bool:
    """Return whether both LoKr matrices are so small that they are stored whole; then alpha has no meaning in files."""
    return any(part.lstrip(".") == "lokr_w1" for part in parts) and any(part.lstrip(".") == "lokr_w2" for part in parts)


def _ignore_alpha_of_full_matrices(layer: Any) -> None:
    if _is_full([part for part, _ in adapter_parameters(layer)]):
        layer.scaling[ADAPTER_NAME] = 1.0


def _alpha(layer: Any) -> float:
    """Return the alpha to write to a file: programs that read it scale by alpha / rank, whatever the algorithm."""
    rank = layer.r[ADAPTER_NAME]
    alpha = layer.lora_alpha[ADAPTER_NAME] if isinstance(layer, PeftLoraLayer) else layer.alpha[ADAPTER_NAME]
    plain = math.isclose(layer.scaling[ADAPTER_NAME], alpha / rank)
    return float(alpha if plain else layer.scaling[ADAPTER_NAME] * rank)


@contextmanager
def adapted(
    model: nn.Module, spec: AdapterSpec, key_of: Callable[[str], str], rows: RowSeeds
) -> Iterator[dict[str, AdaptedLayer]]:
    """Put peft's adapter layers on a model inside the context, with float32 weights, and yield them by file key."""
    chosen = choose_layers(spec, model.named_modules(), key_of)
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
    return layer.get_base_layer().weight.detach().float()
