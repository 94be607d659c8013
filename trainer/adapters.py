"""The weights that are trained on chosen layers: LoRA and its relatives, as peft makes them.

Base models name their layers by the path of the module ("down_blocks.0.attentions.0.….to_q"); files name them by key
("lora_unet_down_blocks_0_…"). `Adapters` holds peft's layers by file key, the name that is the same for both kinds
of base model: so the same seed gives the same weights on either.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig
from peft.tuners.lora import LoraLayer as PeftLoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from .config import ResolvedConfig
from .config.layer_patterns import LayerPattern, parse_patterns
from .formats.layer_names import is_of_text_encoder
from .formats.lora_file import ALPHA, DORA_SCALE, DOWN, UP, LayerTensors
from .rng import generator

ADAPTER_NAME = "default"

Algorithm = Literal["lora", "rslora", "dora", "loha", "lokr"]

_ZERO_AT_FIRST = ("lora_B", "hada_w2_b", "lokr_w2", "lokr_w2_b")
"""The factor of each algorithm that starts at zero, so that at step 0 the model is the base."""

_MAGNITUDE = "lora_magnitude_vector"
_SUFFIXES = {"lora_A": DOWN, "lora_B": UP}
"""Of files; all other parts of peft's layers have the names that LyCORIS gave them in files too."""


@dataclass(frozen=True)
class AdapterSpec:
    """What is to be trained.

    Attributes:
        rank, alpha: the adapter's output is scaled by alpha / rank; by alpha / sqrt(rank) for rslora.
        dropout: 0 to 1, drops entries of its input; not for loha and lokr.
        target_modules: which layers, where there are no `patterns`.
        algorithm: lora (Hu et al. 2021, arXiv:2106.09685), rslora (Kalajdzievski 2023, arXiv:2312.03732), dora (Liu et
            al. 2024, arXiv:2402.09353), loha (Hyeon-Woo et al. 2021, arXiv:2108.06098), lokr (Yeh et al. 2023,
            arXiv:2309.14859).
        patterns: layers by name, with ranks and alphas of their own.
        text_encoder: whether the text encoders are trained too.
    """

    rank: int
    alpha: float
    dropout: float
    target_modules: str
    algorithm: Algorithm = "lora"
    patterns: tuple[LayerPattern, ...] = ()
    text_encoder: bool = False

    @classmethod
    def of(cls, config: ResolvedConfig) -> AdapterSpec:
        """What a config asks for."""
        return cls(
            config.lora_rank,
            config.lora_alpha,
            config.lora_dropout,
            config.target_modules,
            config.algorithm,
            parse_patterns(config.layer_patterns),
            config.train_text_encoder,
        )

    @property
    def of_text_encoder(self) -> AdapterSpec:
        """The part on the text encoders: always all of their attention and feed-forward layers, as in kohya's."""
        return replace(self, target_modules="attention_and_feed_forward", patterns=())


def peft_config(spec: AdapterSpec, chosen: Mapping[str, LayerPattern]) -> PeftConfig:
    """peft's description of adapters on the layers of `select_layers`."""
    ranks = {_exactly(path): layer.rank for path, layer in chosen.items() if layer.rank is not None}
    alphas = {_exactly(path): layer.alpha for path, layer in chosen.items() if layer.alpha is not None}
    shared: dict[str, Any] = {
        "r": spec.rank,
        "target_modules": list(chosen),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
    }
    if spec.algorithm == "loha":
        return LoHaConfig(alpha=spec.alpha, **shared)
    if spec.algorithm == "lokr":
        return LoKrConfig(alpha=spec.alpha, decompose_both=True, **shared)
    return LoraConfig(
        lora_alpha=spec.alpha,  # peft multiplies by it; kohya's alphas are no integers
        lora_dropout=spec.dropout,
        bias="none",
        use_rslora=spec.algorithm == "rslora",
        use_dora=spec.algorithm == "dora",
        **shared,
    )


def _exactly(path: str) -> str:
    """peft takes patterns as regular expressions of a path's end."""
    return "^" + re.escape(path)


@dataclass(frozen=True)
class AdaptedLayer:
    """peft's layer, and what gives the frozen weight below it: as it is used, patches applied, float32."""

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
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        return self.parameters()[0].device

    def parameters(self, of_text_encoder: bool | None = None) -> list[nn.Parameter]:
        """Those of the text encoders, of the model itself, or (None) all."""
        return [
            parameter
            for key, _, parameter in self.named_parameters()
            if of_text_encoder in (None, is_of_text_encoder(key))
        ]

    def named_parameters(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        """File key, part (lora_A, hada_w1_a, …) and weight."""
        for key, layer in self._layers.items():
            for part, parameter in adapter_parameters(layer.adapter):
                yield key, part, parameter

    @contextmanager
    def without_dropout(self) -> Iterator[None]:
        """As the finished LoRA acts, for sampling and measuring."""
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
        """All factors at random (Kaiming uniform, as peft and kohya do) but one, which is zero: at step 0 the model is
        the base.

        Each layer's numbers depend on the seed and its file key alone.
        """
        for key, layer in self._layers.items():
            for part, parameter in adapter_parameters(layer.adapter):
                if part == _MAGNITUDE:
                    parameter.copy_(_row_norms(layer.base_weight()).view(parameter.shape))
                elif part in _ZERO_AT_FIRST:
                    parameter.zero_()
                else:
                    purpose = ("init", key) if part == "lora_A" else ("init", key, part)
                    fresh = torch.empty(parameter.shape)
                    nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator(seed, *purpose))
                    parameter.copy_(fresh)

    @torch.no_grad()
    def round_to(self, dtype: torch.dtype) -> None:
        """Round the weights to what a file of `dtype` holds, so that what is sampled last is what is saved."""
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
        """Copies of the weights on the CPU, by file key and suffix."""
        return {key: _tensors(layer) for key, layer in self._layers.items()}


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
    """‖W‖ / ‖W + ΔW‖ of each output, (out,): files of DoRA divide by the former, training by the latter."""
    weight = layer.base_weight()
    return _row_norms(weight) / _row_norms(weight + delta_weight(layer.adapter).view(weight.shape))


def adapter_layers(module: nn.Module) -> dict[str, BaseTunerLayer]:
    """peft's layers inside a module, by path."""
    return {path: layer for path, layer in module.named_modules() if isinstance(layer, BaseTunerLayer)}


def adapter_parameters(layer: BaseTunerLayer) -> Iterator[tuple[str, nn.Parameter]]:
    """The trained parameters of one of peft's layers, with the names of their parts: lora_A, hada_w1_a, …"""
    assert isinstance(layer, nn.Module)
    for name, parameter in layer.named_parameters():
        part = name.split(".")[0]
        if part != "base_layer":
            yield part, parameter


def delta_weight(layer: BaseTunerLayer) -> Tensor:
    """What a LoRA layer adds to its weight before DoRA scales it, (out, in) or flattened to it, float32."""
    assert isinstance(layer, PeftLoraLayer)
    down, up = layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight
    return layer.scaling[ADAPTER_NAME] * (up.flatten(1) @ down.flatten(1))


def _row_norms(weight: Tensor) -> Tensor:
    """Length of each output's weights, (out,), float32."""
    return torch.linalg.vector_norm(weight.flatten(1), dim=1, dtype=torch.float32)


def _is_dora(layer: BaseTunerLayer) -> bool:
    return any(part == _MAGNITUDE for part, _ in adapter_parameters(layer))


def _is_full(parts: Any) -> bool:
    """Whether LoKr's two matrices are so small that neither is taken apart; then alpha has no meaning in files."""
    return any(part.lstrip(".") == "lokr_w1" for part in parts) and any(part.lstrip(".") == "lokr_w2" for part in parts)


def _ignore_alpha_of_full_matrices(layer: Any) -> None:
    if _is_full([part for part, _ in adapter_parameters(layer)]):
        layer.scaling[ADAPTER_NAME] = 1.0


def _alpha(layer: Any) -> float:
    """The alpha that a file needs: its readers scale by alpha / rank, whatever the algorithm."""
    rank = layer.r[ADAPTER_NAME]
    alpha = layer.lora_alpha[ADAPTER_NAME] if isinstance(layer, PeftLoraLayer) else layer.alpha[ADAPTER_NAME]
    plain = math.isclose(layer.scaling[ADAPTER_NAME], alpha / rank)
    return float(alpha if plain else layer.scaling[ADAPTER_NAME] * rank)
