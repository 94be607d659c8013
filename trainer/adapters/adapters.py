"""Adapters, the weights that are trained on chosen layers: LoRA and its relatives, as peft makes them.

Base models name their layers by module path ("down_blocks.0.attentions.0.….to_q"); files name them by key
("lora_unet_down_blocks_0_…"). `Adapters` holds peft's layers by file key, which is the same for both kinds of base
model, so the same seed gives the same weights on either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer as PeftLoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ..formats.delta import scale_of
from ..formats.layer_names import is_of_text_encoder
from ..formats.lora_file import ALPHA, DORA_SCALE, DOWN, MAGNITUDE, UP, LayerTensors
from ..seeding import generator
from .peft_layers import ADAPTER_NAME, AdaptedLayer, adapter_parameters, delta_weight

_ZERO_AT_FIRST = ("lora_B", "hada_w2_b", "lokr_w2", "lokr_w2_b")
"""The factors that start at zero, one for each algorithm, so that at step 0 the model equals the base model."""

_MAGNITUDE = "lora_magnitude_vector"
_SUFFIXES = {"lora_A": DOWN, "lora_B": UP}
"""The suffixes in files for parts of peft's layers; all other parts have the same names, LyCORIS's, in files too."""


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
        """Disable dropout for sampling and measuring, so that the adapters act like the finished LoRA.

        It may be used inside itself.
        """
        layers = [layer.adapter for layer in self._layers.values() if isinstance(layer.adapter, nn.Module)]
        had_dropout = [layer.training for layer in layers]
        for layer in layers:
            layer.eval()
        try:
            yield
        finally:
            for layer, had in zip(layers, had_dropout, strict=True):
                layer.train(had)

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
        """Load weights as `layers` or `layers_in_peft` returns them; layers that are not among them stay unchanged.

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
            if magnitude is not None and MAGNITUDE in tensors:
                magnitude.copy_(tensors[MAGNITUDE].view(magnitude.shape))
            elif magnitude is not None:
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

    @torch.no_grad()
    def layers_in_peft(self) -> dict[str, LayerTensors]:
        """Return copies as `layers` does, but with a DoRA's `MAGNITUDE`, which PEFT's programs read."""
        found = self.layers()
        for key, layer in self._layers.items():
            for part, parameter in adapter_parameters(layer.adapter):
                if part == _MAGNITUDE:
                    del found[key][DORA_SCALE]
                    found[key][MAGNITUDE] = parameter.detach().flatten().to("cpu", copy=True)
        return found


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
