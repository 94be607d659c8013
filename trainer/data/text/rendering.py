"""What a language model reads of a row: its tokens, and which of them are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ...errors import CrucibleError
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
        chat_template: the template in Jinja, which belongs to the model wherever it is used; "" if there is none.
    """

    name: str
    stop_token: int
    chat_template: str

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


class UnrenderableRow(CrucibleError):
    """A chat template does not take a conversation.

    The message is a clause that follows the row's name, and a sentence that says what to do.
    """


def rendered_answers(renderer: Renderer, turns: Sequence[Turn]) -> list[Rendered]:
    """Return the tokens of a conversation such that each of its answers is trained once.

    This is one entry for a template that writes earlier turns as they were when they were answered. Some do not, such
    as those that take out what the model thought. Then the answers are trained in several entries, each after the
    prompt that the model sees when it is asked for it.

    Raises:
        UnrenderableRow: the template does not take the conversation.
    """
    whole = renderer.conversation(turns)
    found = []
    for place, turn in enumerate(turns[:-1]):
        if turn.role != "assistant":
            continue
        part = renderer.conversation(turns[: place + 1])
        length = len(part.tokens)
        if whole.tokens[:length] != part.tokens or whole.trained[:length] != part.trained:
            found.append(part)
    return [*found, whole]


def has_conversations(renderer: Renderer) -> bool:
    """Return whether there is a template to write conversations with."""
    try:
        renderer.prompt([Turn("user", "?")])
    except CrucibleError:
        return False
    return True


def prompt_tokens(renderer: Renderer, prompt: Sequence[Turn]) -> tuple[int, ...]:
    """Return the tokens of a prompt: as a conversation or, for a model without a template for conversations, its last
    turn as the beginning of a text."""
    if has_conversations(renderer):
        return renderer.prompt(prompt)
    tokens = renderer.text(prompt[-1].text).tokens
    return tokens[:-1] if tokens[-1] == renderer.stop_token else tokens
