"""The report as plain text that can be pasted into a forum."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

WIDTH = 78
"""The most characters of a line."""


@dataclass(frozen=True)
class Advice:
    """A finding and what to do about it.

    Attributes:
        text: what was found, why it matters and what to do.
        command: the command to type into a terminal, or "" if there is none.
    """

    text: str
    command: str = ""


@dataclass
class Section:
    """The findings about one subject.

    Attributes:
        title: the heading.
        rows: the name and value of each line; a line without a name continues the one above.
        obstacles: findings that prevent training.
        notes: findings that do not prevent training.
    """

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    obstacles: list[Advice] = field(default_factory=list)
    notes: list[Advice] = field(default_factory=list)


def page(heading: str, sections: Sequence[Section]) -> str:
    """Return the report: the sections, then all notes, then all obstacles."""
    lines = [heading]
    for section in sections:
        lines += ["", section.title, *_rows(section.rows)]
    notes = [note for section in sections for note in section.notes]
    if notes:
        lines += ["", "Notes", *(line for note in notes for line in _advice("  - ", note))]
    lines += ["", *_verdict([obstacle for section in sections for obstacle in section.obstacles])]
    return "\n".join(lines)


def size_text(size: int) -> str:
    """Return a number of bytes in GB (1 GB = 1,000,000,000 bytes)."""
    return f"{size / 1e9:.1f} GB"


def path_text(path: str | Path) -> str:
    """Return a path with ~ for the user's home folder, so that it does not reveal the user's name."""
    home, written = os.path.expanduser("~"), str(path)
    inside = len(home) > 1 and written.startswith(home) and written[len(home) : len(home) + 1] in ("", "/", os.sep)
    return "~" + written[len(home) :] if inside else written


def _verdict(obstacles: Sequence[Advice]) -> Iterable[str]:
    if not obstacles:
        yield "This computer is ready for training."
        return
    yield "Fix this before training:"
    for number, obstacle in enumerate(obstacles, start=1):
        yield from _advice(f"{number}. ", obstacle)


def _advice(start: str, advice: Advice) -> Iterable[str]:
    yield from _wrapped(start, advice.text)
    if advice.command:
        yield f"{'':{len(start) + 2}}{advice.command}"  # in one line, so that it can be copied


def _rows(rows: Sequence[tuple[str, str]]) -> Iterable[str]:
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        yield from _wrapped(f"  {name:<{width}}  ", value)


def _wrapped(start: str, text: str) -> list[str]:
    """Wrap a text into lines of at most `WIDTH` characters, without breaking longer words such as paths."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [start.rstrip()]
