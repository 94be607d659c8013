"""Encoded training examples and their losses."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Inputs = TypeVar("Inputs")

Progress = Callable[[int, int, str], None]
"""A function called with (done, total, what is being done), which may raise to stop."""


@dataclass(frozen=True)
class CachedExample(Generic[Inputs]):
    """A training example whose inputs have been encoded.

    Attributes:
        name: the name of the example in messages to the user.
        group: the group of the example; only examples of the same group can share a batch.
        inputs: the encoded inputs that the base model computes losses from.
        size: the memory that the example needs relative to others, such as its number of pixels.
        weight: the weight in the loss of a step: 1 for an image, the number of trained tokens for a text.
    """

    name: str
    group: Hashable
    inputs: Inputs
    size: int = 1
    weight: float = 1.0


@dataclass(frozen=True)
class RowLosses:
    """The losses of the rows of a batch, as float32 tensors of shape (rows,).

    Attributes:
        values: the losses that are trained, with gradients to the adapters.
        errors: the plain errors that are reported, without gradients and without any weighting.
        timesteps: the noise level of each row as a share of the schedule, from 0 (no noise) to 1 (only noise); None for
            models that are not trained with noise.
    """

    values: Tensor
    errors: Tensor
    timesteps: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[RowLosses], order: Sequence[int]) -> RowLosses:
        """Join the losses of several batches.

        Args:
            parts: the losses of each batch.
            order: for each row of the result, its index among the rows of all batches.
        """

        def join(tensors: list[Tensor]) -> Tensor:
            return torch.cat(tensors)[list(order)]

        levels = [one.timesteps for one in parts if one.timesteps is not None]
        return cls(
            join([one.values for one in parts]),
            join([one.errors for one in parts]),
            join(levels) if levels else None,
        )
