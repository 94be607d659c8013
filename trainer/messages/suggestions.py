"""Suggestions of what a user probably meant by a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


def nearest_names(name: str, candidates: Iterable[str], count: int = 1, cutoff: float | None = None) -> list[str]:
    """Return the candidates most similar to `name`, best first; if none is similar, those that contain it.

    Case is ignored, and hyphens, spaces and underscores are considered equal.

    Args:
        count: the most candidates to return.
        cutoff: the least similarity, from 0 to 1, of candidates that differ only by misspelling; None also finds those
            that are less similar, and those that contain the name.
    """

    def plain(text: str) -> str:
        return text.strip().lower().replace("-", "_").replace(" ", "_")

    by_plain = {plain(candidate): candidate for candidate in candidates}
    found = difflib.get_close_matches(plain(name), by_plain, n=count, cutoff=cutoff or 0.6)
    if not found and cutoff is None and len(plain(name)) > 2:
        found = [candidate for candidate in by_plain if plain(name) in candidate][:count]
    return [by_plain[candidate] for candidate in found]


def nearest_path(path: Path) -> str:
    """Say in one sentence what exists near a path that does not exist, or return "" if nothing can be listed there."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        path, parent = parent, parent.parent
    try:
        siblings = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    except OSError:
        return ""
    near = nearest_names(path.name, siblings)
    if near:
        return f"A similar path exists: {parent / near[0]}."
    return f"The nearest folder that exists is {parent}."
