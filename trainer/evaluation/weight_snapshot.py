"""Copies of trained weights that can be restored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def copied(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Copy the weights to the CPU, in the order of `parameters`."""
    return [parameter.detach().to("cpu", copy=True) for parameter in parameters]


@torch.no_grad()
def put(weights: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> None:
    """Overwrite the parameters with copies that `copied` made."""
    for parameter, weight in zip(parameters, weights, strict=True):
        parameter.copy_(weight)


@contextmanager
def swapped(weights: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Give the parameters other weights inside the context, and restore their own afterwards."""
    own = copied(parameters)
    put(weights, parameters)
    try:
        yield
    finally:
        put(own, parameters)
