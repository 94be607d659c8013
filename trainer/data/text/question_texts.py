"""Recognizing questions and answers that are written into one text, such as "Q: … A: …"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from .rows import Row, Turn

PAIRS = (
    ("Q", "A"),
    ("Question", "Answer"),
    ("问", "答"),
    ("問", "答"),
    ("问题", "答案"),
    ("问题", "回答"),
    ("問題", "答案"),
    ("問題", "回答"),
    ("質問", "回答"),
    ("질문", "답변"),
    ("User", "Assistant"),
    ("用户", "助手"),
    ("Human", "Assistant"),
    ("Human", "AI"),
    ("User", "AI"),
    ("User", "Bot"),
    ("Prompt", "Response"),
    ("Prompt", "Completion"),
    ("Prompt", "Answer"),
    ("Instruction", "Response"),
    ("Instruction", "Output"),
    ("Input", "Output"),
)
"""The marks in front of a question and of its answer."""


def _pattern(mark: str, at_line_start: bool) -> str:
    spaced = mark.isascii()
    before = r"(?:^|\n)[ \t]*" if at_line_start else (r"(?:^|\s)" if spaced else "")
    return rf"{before}(?:#+[ \t]*|\*\*)?{mark}(?:\*\*)?[ \t]*[:：](?:\*\*)?"


_FORMS = tuple(
    (
        pair,
        re.compile(rf"\s*{_pattern(pair[0], False)}", re.IGNORECASE),
        re.compile(f"{_pattern(pair[0], True)}|(?P<answer>{_pattern(pair[1], True)})", re.IGNORECASE),
        re.compile(_pattern(pair[1], False), re.IGNORECASE),
    )
    for pair in PAIRS
)


def as_turns(text: str) -> tuple[tuple[Turn, ...], str] | None:
    """Return a text that consists of questions and answers as turns, with its marks such as "Q: … A: …".

    Returns:
        None for any other text.
    """
    for pair, begin, both, answer in _FORMS:
        if (start := begin.match(text)) is None:
            continue
        turns = _by_lines(text, both) or _on_one_line(text, start.end(), answer)
        if turns is not None:
            return turns, f"{pair[0]}: … {pair[1]}: …"
    return None


def _by_lines(text: str, both: re.Pattern[str]) -> tuple[Turn, ...] | None:
    """Return the turns if each mark begins a line, question and answer take turns, and none is empty."""
    marks = list(both.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    turns = tuple(
        Turn("assistant" if mark["answer"] else "user", text[mark.end() : end].strip())
        for mark, end in zip(marks, ends, strict=True)
    )
    roles = [turn.role for turn in turns]
    alternate = roles == ["user", "assistant"] * (len(roles) // 2)
    return turns if turns and alternate and all(turn.text for turn in turns) else None


def _on_one_line(text: str, start: int, answer: re.Pattern[str]) -> tuple[Turn, ...] | None:
    mark = answer.search(text, start)
    if mark is None:
        return None
    question, reply = text[start : mark.start()].strip(), text[mark.end() :].strip()
    return (Turn("user", question), Turn("assistant", reply)) if question and reply else None


def read_questions(rows: Sequence[Row]) -> tuple[tuple[Row, ...], tuple[str, ...], tuple[str, ...]]:
    """Read the text rows of a dataset as conversations if every one of them is written as questions and answers.

    Returns:
        The rows; the marks that were found, empty if the texts stay texts; and in that case the names of the texts that
        are no questions, if most others are.
    """
    found = {row: as_turns(row.text) for row in rows if row.text and not row.turns}
    others = tuple(row.name for row, turns in found.items() if turns is None)
    if not found or others:
        return tuple(rows), (), others if len(others) * 5 <= len(found) else ()
    read = []
    for row in rows:
        turns = found.get(row)
        read.append(row if turns is None else replace(row, turns=turns[0], text=""))
    return tuple(read), tuple(dict.fromkeys(turns[1] for turns in found.values() if turns)), ()
