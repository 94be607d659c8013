"""What a language model reads of a row: its tokens, and which of them are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .rows import Turn


@dataclass(frozen=True)
class Rendered:
    """The tokens of a row.

    Attributes:
        tokens: the token ids.
        trained: for each token, whether predicting it is trained. Answers and the stop token are, prompts are not.
    """

    tokens: tuple[int, ...]
    trained: tuple[bool, ...]


class Renderer(Protocol):
    """Turns conversations and texts into tokens in the way that a language model expects them.

    Attributes:
        name: the template in messages to the user, such as "the tokenizer's chat template".
        stop_token: the id of the token that ends an answer.
    """

    name: str
    stop_token: int

    def prompt(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """Return the tokens of a conversation up to where the model's next answer begins."""

    def conversation(self, turns: Sequence[Turn]) -> Rendered:
        """Return the tokens of a conversation whose last turn is an answer.

        The tokens of `prompt(turns[:-1])` are a prefix of them, and each answer is followed by the stop token.
        """

    def text(self, text: str) -> Rendered:
        """Return the tokens of a text that is trained whole, followed by the stop token."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return tokens as text, with special tokens written out."""
