"""Wording of numbers and lists of names in messages."""

from __future__ import annotations

from collections.abc import Sequence

NAMES_SHOWN = 5
"""The most names that a message lists; the rest is only counted."""


def listed(names: Sequence[str]) -> str:
    """Return the first names and the number of the rest, such as "a, b, c, d, e and 7 more".

    Semicolons separate names that have commas of their own, such as "rows.jsonl, line 3".
    """
    more = len(names) - NAMES_SHOWN
    shown = names[:NAMES_SHOWN]
    separator = "; " if any(", " in name for name in shown) else ", "
    return separator.join(shown) + (f" and {more} more" if more > 0 else "")


def counted(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun, such as "1 image" or "2 images"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def size_text(size: int) -> str:
    """Return a size in bytes with a suitable unit, such as "14.2 MB", where 1 MB is 1,000,000 bytes."""
    if size < 1000:
        return f"{size} bytes"
    for unit, factor in (("KB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        value = size / factor
        if value < 999.95 or unit == "GB":
            break
    return f"{value:.1f} {unit}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's text without its full stop, or the name of the error if it has no text."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
