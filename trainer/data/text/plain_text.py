"""Taking plain text files apart into rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...messages.wording import counted
from .question_texts import as_turns
from .raw_rows import RawRow, RowProblem

LIST_LINES = 5
"""From so many lines on, a file without empty lines is a list whose lines are rows."""


def plain_rows(name: str, text: str, is_document: bool) -> tuple[Iterator[RawRow | RowProblem], str]:
    """Take a text file apart.

    Paragraphs, which empty lines separate, are rows. So are the lines of a file that has many of them and no empty
    line. Questions and answers (Q: … A: …) are always rows of their own.

    Args:
        name: the file's path below the dataset's folder.
        text: its text.
        is_document: whether it is one of many, which are rows as they are.

    Returns:
        The rows, and how they were found, as a phrase such as "60 lines, each a row".
    """
    paragraphs = [(place, part) for place, part in _paragraphs(text) if part.strip()]
    asked = [part for _, part in paragraphs if as_turns(part) is not None]
    if is_document and not (len(asked) == len(paragraphs) > 1):
        return iter([RawRow(name, "the whole file", text)] if text.strip() else []), "the whole file is a row"
    if len(paragraphs) == 1 and not asked:
        lines = [(place, line) for place, line in enumerate(text.split("\n"), start=1) if line.strip()]
        if len(lines) < LIST_LINES and not all(as_turns(line) for _, line in lines):
            return iter([RawRow(name, "the whole file", text)]), "the whole file is a row"
        return iter([RawRow(name, f"line {place}", line) for place, line in lines]), f"{len(lines)} lines, each a row"
    found = [RawRow(name, f"line {place}", part) for place, part in paragraphs]
    return iter(found), f"{counted(len(found), 'paragraph')}, each a row"


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of the first line of each paragraph, and its text."""
    line, start = 1, 0
    for gap in re.finditer(r"\n(?:[ \t]*\n)+", text):
        part = text[start : gap.start()]
        yield line, part
        line += part.count("\n") + gap.group().count("\n")
        start = gap.end()
    yield line, text[start:]
