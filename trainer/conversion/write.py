"""A translated config as YAML, and what is said about the translation."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from ..config.schema import SETTINGS
from .conversion import Conversion

WIDTH = 110
"""The most characters of a line of comments."""

_SECTIONS = (
    ("lost", "Without a counterpart here"),
    ("differs", "Means something else here"),
    ("guessed", "Decided, because the file leaves it open"),
)


def yaml_of(conversion: Conversion) -> str:
    """Return the config as YAML, with where each value comes from, and what was lost, as comments."""
    lines = [f"# {_on_one_line(f'Converted from {conversion.source}: {conversion.program}.')}"]
    for name in SETTINGS:
        if name in conversion.settings:
            lines += _lines(name, conversion.settings[name], conversion.reasons.get(name, ""))
    for field, title in _SECTIONS:
        texts: Sequence[str] = getattr(conversion, field)
        if texts:
            lines += ["", f"# {title}:"]
            for text in texts:
                lines += textwrap.wrap(_on_one_line(text), WIDTH, initial_indent="#   ", subsequent_indent="#     ")
    return "\n".join(lines) + "\n"


def report_of(conversion: Conversion) -> str:
    """Return what is said to the user: what was translated, lost, and means something else."""
    lines = [f"{conversion.source}: {conversion.program}. {len(conversion.settings)} settings."]
    for field, title in _SECTIONS:
        texts: Sequence[str] = getattr(conversion, field)
        if texts:
            lines += [f"{title}:", *(f"  {text}" for text in texts)]
    for title, keys in (
        ("Needs no setting here", conversion.by_itself),
        ("Switched off there, and so here", conversion.off),
        ("Taken together with others, or without effect there", conversion.unsaid),
        ("About files, machines and logs of the other program only", conversion.housekeeping),
    ):
        if keys:
            unique = list(dict.fromkeys(keys))
            lines.append(f"{title} ({len(unique)}): {', '.join(unique)}.")
    return "\n".join(lines)


def _lines(name: str, value: Any, reason: str) -> list[str]:
    written = value.splitlines() if isinstance(value, str) and "\n" in value else value
    text = yaml.safe_dump({name: written}, allow_unicode=True, width=10_000).rstrip()
    comment = _on_one_line(reason)
    if not comment:
        return text.splitlines()
    if "\n" in text:
        return [f"# {comment}", *text.splitlines()]
    return [f"{text}  # {comment}"]


def _on_one_line(text: str) -> str:
    """Return a text without line breaks, of which YAML knows more than textwrap: after one, a comment has ended."""
    return " ".join(text.split())
