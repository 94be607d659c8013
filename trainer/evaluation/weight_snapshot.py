"""Copies of trained weights, to go back to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def copied(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The weights on the CPU, in the order of `parameters`."""
    return [parameter.detach().to("cpu", copy=True) for parameter in parameters]


@torch.no_grad()
def put(weights: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> None:
    """Overwrite the parameters by copies of them."""
    for parameter, weight in zip(parameters, weights, strict=True):
        parameter.copy_(weight)


@contextmanager
def swapped(weights: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Other weights for a while."""
    own = copied(parameters)
    put(weights, parameters)
    try:
        yield
    finally:
        put(own, parameters)
