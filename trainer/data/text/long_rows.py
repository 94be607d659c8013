"""Fitting rows into the most tokens that are trained of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ...config.text_settings import LongRows
from .rendering import Rendered, Renderer, UnrenderableRow, rendered_answers
from .rows import Row, Turn

Outcome = Literal["whole", "split", "cut", "left_out"]

WORD_REACH = 30
"""How many characters after a cut the beginning of a word is looked for."""


@dataclass(frozen=True)
class FittedRow:
    """A row as it is trained.

    Attributes:
        parts: its tokens in one or more parts; none if it is left out.
        outcome: what was done to it.
        length: the number of tokens before anything was cut.
    """

    parts: tuple[Rendered, ...]
    outcome: Outcome
    length: int


class AnswerTooLong(UnrenderableRow):
    """A row does not fit even without its prompt, so its answer would be cut."""


def fitted(renderer: Renderer, row: Row, longest: int, long_rows: LongRows) -> FittedRow:
    """Render a row, and do what `long_rows` says if it has more than `longest` tokens.

    A text is cut into parts of about the same length. Of a conversation, the oldest prompts and answers become an
    example of their own; if the last prompt alone is too long, its front is cut. The template around it stays as it is.

    Raises:
        UnrenderableRow: the template does not take the conversation.
        AnswerTooLong: an answer would be cut.
    """
    if row.turns:
        parts = rendered_answers(renderer, row.turns)
        length = max(len(part.tokens) for part in parts)
        if length <= longest:
            return FittedRow(tuple(parts), "whole", length)
        if long_rows in ("split", "leave_out"):
            return FittedRow((), "left_out", length)
        return FittedRow(tuple(_cut(renderer, row.turns, longest)), "cut", length)
    whole = renderer.text(row.text)
    length = len(whole.tokens)
    if length <= longest:
        return FittedRow((whole,), "whole", length)
    if long_rows in ("cut_prompt", "leave_out"):
        return FittedRow((), "left_out", length)
    return FittedRow(tuple(_split(renderer, whole, longest)), "split", length)


def _split(renderer: Renderer, whole: Rendered, longest: int) -> list[Rendered]:
    """Cut a text into parts, each with what stands in front of every text, such as BOS."""
    front = renderer.text("").tokens[:-1]
    if whole.tokens[: len(front)] != front:
        front = ()
    body, trained = whole.tokens[len(front) :], whole.trained[len(front) :]
    count = -(-len(body) // (longest - len(front)))
    size = -(-len(body) // count)
    parts = []
    for start in range(0, len(body), size):
        flags = [*[False] * len(front), *trained[start : start + size]]
        flags[0] = False  # nothing comes before it that it could be predicted from
        parts.append(Rendered((*front, *body[start : start + size]), tuple(flags)))
    return parts


def _cut(renderer: Renderer, turns: Sequence[Turn], longest: int) -> list[Rendered]:
    system = tuple(turns[:1]) if turns[0].role == "system" else ()
    rest = tuple(turns[len(system) :])
    for start in range(2, len(rest), 2):
        parts = rendered_answers(renderer, (*system, *rest[start:]))
        if all(len(part.tokens) <= longest for part in parts):
            return [*_fitting(renderer, (*system, *rest[:start]), longest), *parts]
    front = _fitting(renderer, (*system, *rest[:-2]), longest) if len(rest) > 2 else []
    return [*front, _with_shorter_prompt(renderer, system, rest[-2], rest[-1], longest)]


def _fitting(renderer: Renderer, turns: Sequence[Turn], longest: int) -> list[Rendered]:
    parts = rendered_answers(renderer, turns)
    return parts if all(len(part.tokens) <= longest for part in parts) else _cut(renderer, turns, longest)


def _with_shorter_prompt(
    renderer: Renderer, system: Sequence[Turn], prompt: Turn, answer: Turn, longest: int
) -> Rendered:
    """Cut as little of the front of a prompt as is needed, to the beginning of a word where one is near."""

    def ending(characters: int) -> Rendered:
        text = prompt.text[len(prompt.text) - characters :]
        begin = re.search(r"\s+\S", text[:WORD_REACH]) if characters < len(prompt.text) else None
        text = text[begin.end() - 1 :] if begin else text
        return renderer.conversation((*system, replace(prompt, text=text), answer))

    least, most = 1, len(prompt.text)
    best = ending(least)
    if len(best.tokens) > longest:
        raise AnswerTooLong(
            f"has an answer that takes {len(best.tokens):,} tokens with the template and the system text, and "
            f"{longest:,} is the most, so the end of the answer would be cut and the model would not learn to stop. "
            "Raise max_seq_length, shorten the answer, or set long_rows to leave_out."
        )
    while least < most:
        middle = (least + most + 1) // 2
        tried = ending(middle)
        if len(tried.tokens) <= longest:
            least, best = middle, tried
        else:
            most = middle - 1
    return best
