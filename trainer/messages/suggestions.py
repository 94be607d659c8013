"""Finds what somebody probably meant by a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


def nearest_names(name: str, candidates: Iterable[str], count: int = 1) -> list[str]:
    """The candidates most like `name`, best first; those that contain it when none is spelt like it.

    Case and the difference between hyphen, space and underscore do not count.
    """

    def plain(text: str) -> str:
        return text.strip().lower().replace("-", "_").replace(" ", "_")

    by_plain = {plain(candidate): candidate for candidate in candidates}
    found = difflib.get_close_matches(plain(name), by_plain, n=count, cutoff=0.6)
    if not found and len(plain(name)) > 2:
        found = [candidate for candidate in by_plain if plain(name) in candidate][:count]
    return [by_plain[candidate] for candidate in found]


def nearest_path(path: Path) -> str:
    """Says in one sentence what exists near a path that does not, or nothing when there is nothing near."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        path, parent = parent, parent.parent
    try:
        siblings = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    except OSError:
        return ""
    near = nearest_names(path.name, siblings)
    if near:
        return f"There is {parent / near[0]}."
    return f"The nearest folder that exists is {parent}."
