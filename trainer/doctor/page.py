"""The report as plain text that survives being pasted into a forum."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

WIDTH = 78


@dataclass(frozen=True)
class Advice:
    """
    Attributes:
        text: what there is, what follows from it and what to do.
        command: what to type into a terminal for it, or "".
    """

    text: str
    command: str = ""


@dataclass
class Section:
    """What was found out about one subject.

    Attributes:
        rows: name and value of each line; a line without a name goes on with the one above.
        obstacles: what stands in the way of a training. notes: what does not, but is worth knowing.
    """

    title: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    obstacles: list[Advice] = field(default_factory=list)
    notes: list[Advice] = field(default_factory=list)


def page(heading: str, sections: Sequence[Section]) -> str:
    lines = [heading]
    for section in sections:
        lines += ["", section.title, *_rows(section.rows)]
    notes = [note for section in sections for note in section.notes]
    if notes:
        lines += ["", "Worth knowing", *(line for note in notes for line in _advice("  - ", note))]
    lines += ["", *_verdict([obstacle for section in sections for obstacle in section.obstacles])]
    return "\n".join(lines)


def size_text(size: int) -> str:
    """Bytes in GB (1 GB = 1,000,000,000 bytes)."""
    return f"{size / 1e9:.1f} GB"


def path_text(path: str | Path) -> str:
    """A path without the name of the user whose folder it lies in."""
    home, written = os.path.expanduser("~"), str(path)
    inside = len(home) > 1 and written.startswith(home) and written[len(home) : len(home) + 1] in ("", "/", os.sep)
    return "~" + written[len(home) :] if inside else written


def _verdict(obstacles: Sequence[Advice]) -> Iterable[str]:
    if not obstacles:
        yield "Nothing stands in the way of a training."
        return
    yield "What stands in the way of a training:"
    for number, obstacle in enumerate(obstacles, start=1):
        yield from _advice(f"{number}. ", obstacle)


def _advice(start: str, advice: Advice) -> Iterable[str]:
    yield from _wrapped(start, advice.text)
    if advice.command:
        yield f"{'':{len(start) + 2}}{advice.command}"  # whole, so that it can be copied


def _rows(rows: Sequence[tuple[str, str]]) -> Iterable[str]:
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        yield from _wrapped(f"  {name:<{width}}  ", value)


def _wrapped(start: str, text: str) -> list[str]:
    """Lines of at most `WIDTH` characters, but for words that are longer, such as paths."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [start.rstrip()]
