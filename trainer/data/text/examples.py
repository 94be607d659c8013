"""The examples that a language model is trained on."""

from __future__ import annotations

from dataclasses import dataclass

from .rendering import Rendered


@dataclass(frozen=True)
class TextExample:
    """A rendered row, or the part of one that fits into the length limit.

    Attributes:
        name: the name of the row in messages to the user.
        rendered: its tokens.
        group: the length in tokens that examples of a batch are padded to at most; only examples of the same group
            share a batch.
        weight: the weight of each of its trained tokens: 1, or `prior_loss_weight` for a regularization row.
    """

    name: str
    rendered: Rendered
    group: int
    weight: float = 1.0
