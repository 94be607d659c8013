"""Layers in 4 bits under adapters that ask a layer for the shape of its weight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...adapters.spec import AdapterSpec
from ...formats.universal import kind_of

_ASK_FOR_SHAPE = ("loha", "lokr")
"""The algorithms whose layers in peft read `weight.shape`, which is that of the packed numbers in 4 bits."""


class ShapedLinear(nn.Linear):
    """A layer in 4 bits whose weight has the shape of the matrix that it stands for.

    Args:
        layer: the layer, which computes the outputs.
    """

    def __init__(self, layer: Any) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        number = torch.empty(1, dtype=torch.uint8, device=layer.weight.device)
        self.weight = nn.Parameter(number.expand(self.out_features, self.in_features), requires_grad=False)
        self.register_parameter("bias", None)
        self.layer: tuple[Any] = (layer,)  # a tuple, so that it is not found as a module of its own

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.layer[0](input)
        return output


@contextmanager
def with_shapes(model: nn.Module, spec: AdapterSpec) -> Iterator[None]:
    """Give layers in 4 bits the shapes of their matrices inside the context, if the adapters ask for them."""
    algorithms = {spec.algorithm, *(kind_of(tensors) for tensors in spec.start.values())}
    layers: dict[str, nn.Module] = {}
    if algorithms & set(_ASK_FOR_SHAPE):
        modules = list(model.named_modules())
        layers = {path: module for path, module in modules if _is_4bit(module)}
    try:
        for path, layer in layers.items():
            model.set_submodule(path, ShapedLinear(layer))
        yield
    finally:
        for path, layer in layers.items():
            model.set_submodule(path, layer)


def _is_4bit(module: nn.Module) -> bool:
    return type(getattr(module, "weight", None)).__name__ == "Params4bit"
