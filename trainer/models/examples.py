"""Training examples as a base model wants them, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Inputs = TypeVar("Inputs")

Progress = Callable[[int, int, str], None]
"""A function called with (done, total, what is being done); it may raise to stop."""


@dataclass(frozen=True)
class CachedExample(Generic[Inputs]):
    """A training example whose inputs have been encoded.

    Attributes:
        name: what the user calls it.
        group: examples of the same group can share a batch.
        inputs: what the base model's losses are computed from.
        size: how much memory it needs beside the others, such as its pixels.
        weight: how much it counts in the loss of a step: 1 for a picture, the number of trained tokens for a text.
    """

    name: str
    group: Hashable
    inputs: Inputs
    size: int = 1
    weight: float = 1.0


@dataclass(frozen=True)
class RowLosses:
    """The losses of the rows of a batch, each (rows,), float32.

    Attributes:
        values: the losses that are trained, with gradients to the adapters.
        errors: the plain errors that are reported, without gradients and without any weighting.
        timesteps: how much noise each row got, as a share of the schedule: 0 is none, 1 is nothing but noise. 0 for
            models without noise.
    """

    values: Tensor
    errors: Tensor
    timesteps: Tensor

    @classmethod
    def joined(cls, parts: Sequence[RowLosses], order: Sequence[int]) -> RowLosses:
        """Join the losses of several batches.

        Args:
            parts: the losses of each batch.
            order: for each row of the result, its index among the rows of all batches.
        """

        def join(tensors: list[Tensor]) -> Tensor:
            return torch.cat(tensors)[list(order)]

        return cls(
            join([one.values for one in parts]),
            join([one.errors for one in parts]),
            join([one.timesteps for one in parts]),
        )
