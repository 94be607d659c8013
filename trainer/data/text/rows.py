"""The rows of text datasets, whatever file format they were read from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]

RowKind = Literal["alpaca", "sharegpt", "messages", "prompt_completion", "text"]
"""The layout of a row: which keys it has, and what they mean."""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True)
class Row:
    """A row of a dataset: a conversation that ends with an answer, or a text that is trained whole.

    Attributes:
        name: the file and the number of the row, such as "train.jsonl, row 12", in messages to the user.
        kind: the layout that the row was read in.
        turns: the conversation; empty for a text.
        text: the text; "" for a conversation.
    """

    name: str
    kind: RowKind
    turns: tuple[Turn, ...] = ()
    text: str = ""
