"""Rows as prompts that a model is asked, with the answers that are expected."""

from __future__ import annotations

from dataclasses import dataclass

from .rendering import Rendered, Renderer
from .rows import Row

MOST_OPENING = 32
"""The most tokens of the beginning of a text that a model is asked to continue; of short texts, a quarter."""


@dataclass(frozen=True)
class Question:
    """A prompt with the answer that is expected.

    Attributes:
        name: the name of the row in messages to the user.
        prompt: the tokens of the prompt, up to where the answer begins.
        prompt_text: what the user of the conversation said last, or the beginning of a text.
        answer: the answer that is expected, or the rest of the text.
    """

    name: str
    prompt: tuple[int, ...]
    prompt_text: str
    answer: str


def question_of(renderer: Renderer, row: Row, rendered: Rendered) -> Question:
    """Return a row as a prompt with its last answer; of a text, the beginning is the prompt.

    Args:
        renderer: what rendered the row.
        row: the row.
        rendered: its tokens, or the last part of them.
    """
    if row.turns:
        return Question(row.name, _prompt(renderer, row, rendered), row.turns[-2].text, row.turns[-1].text)
    tokens = rendered.tokens[:-1] if rendered.tokens[-1] == renderer.stop_token else rendered.tokens
    front = len(renderer.text("").tokens) - 1
    front = front if tokens[:front] == renderer.text("").tokens[:-1] else 0
    opening = front + max(1, min(MOST_OPENING, (len(tokens) - front) // 4))
    text = renderer.decode(tokens[front:opening])
    return Question(row.name, tokens[:opening], text, renderer.decode(tokens[opening:]))


def _prompt(renderer: Renderer, row: Row, rendered: Rendered) -> tuple[int, ...]:
    """Return the tokens in front of the last answer, which are the last ones that are not trained."""
    if not all(rendered.trained[1:]):
        end = max(place for place, trained in enumerate(rendered.trained) if not trained)
        return rendered.tokens[: end + 1]
    return renderer.prompt(row.turns[:-1])
