"""Writing a cleaned copy of a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import CrucibleError
from ...files.atomic import write_whole
from ...files.text import encoded
from ...messages.wording import counted, listed
from .read import read_rows
from .roles import is_empty, order_problem
from .rows import Row, Turn
from .text_checks import same_text


def cleaned(rows: Sequence[Row]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Mend rows whose roles do not alternate, and leave out empty rows and exact duplicates.

    Messages of the same role in a row are joined; answers without a prompt at the beginning, and prompts without an
    answer at the end, are cut off.

    Returns:
        The rows that remain, in the same order, and sentences that say what was changed.
    """
    kept: list[Row] = []
    seen: set[tuple[str, ...]] = set()
    mended, empty, unusable, copies = [], [], [], []
    for row in rows:
        if is_empty(row):
            empty.append(row.name)
            continue
        turns = _mended(row.turns)
        if turns != row.turns:
            if not turns or order_problem(turns) or is_empty(replace(row, turns=turns)):
                unusable.append(row.name)
                continue
            mended.append(row.name)
            row = replace(row, turns=turns)
        if same_text(row) in seen:
            copies.append(row.name)
            continue
        seen.add(same_text(row))
        kept.append(row)
    said = (
        (mended, "row was mended so that prompts and answers take turns", "rows were mended so that they take turns"),
        (empty, "row without text or answer was left out", "rows without text or answer were left out"),
        (
            unusable,
            "row without a prompt and an answer was left out",
            "rows without a prompt and an answer were left out",
        ),
        (copies, "row that repeats another was left out", "rows that repeat others were left out"),
    )
    changes = tuple(f"{counted(len(names), one, many)} ({listed(names)})." for names, one, many in said if names)
    return tuple(kept), changes


def _mended(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    joined: list[Turn] = []
    for turn in turns:
        if not turn.text.strip():
            continue
        if joined and joined[-1].role == turn.role:
            joined[-1] = replace(joined[-1], text=f"{joined[-1].text}\n\n{turn.text}")
        else:
            joined.append(turn)
    front = joined[:1] if joined and joined[0].role == "system" else []
    rest = joined[len(front) :]
    while rest and rest[0].role != "user":
        rest = rest[1:]
    while rest and rest[-1].role != "assistant":
        rest = rest[:-1]
    return (*front, *rest) if rest else ()


def write_cleaned(source: Path, columns: Mapping[str, str], target: Path) -> str:
    """Write a cleaned copy of a file or folder as JSON lines of messages and texts, and say what was changed.

    Args:
        source: the file or folder, which stays as it is.
        columns: the keys by their meaning as the user named them; empty to recognize them.
        target: the file to write, which must not exist.

    Raises:
        CrucibleError: the file exists or is in the folder that is read, nothing remains, or it cannot be written.
    """
    target = target.expanduser().absolute()
    if target.is_dir():
        raise CrucibleError(
            f"{target} is a folder, and a cleaned copy is one file, so nothing was written. Name a file in it, such as "
            f"{target / 'clean.jsonl'}."
        )
    if target.exists():
        raise CrucibleError(
            f"{target} exists, and a cleaned copy never replaces a file, so nothing was written. Give another name, or "
            "delete it first."
        )
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise CrucibleError(
            f"{target} would be in the folder that is cleaned, where its rows would be trained twice, so nothing was "
            f"written. Choose a place outside of {source}."
        )
    read = read_rows(source, columns)
    rows, changes = cleaned((*read.rows, *read.faulty))
    faulty = {row.name for row in read.faulty}
    lost = [problem for problem in read.problems if problem.name not in faulty]
    if lost:
        names = listed([problem.name for problem in lost])
        changes = (f"{counted(len(lost), 'row that cannot be read was', 'rows that cannot be read were')} left out "
                   f"({names}).", *changes)  # fmt: skip
    if not rows:
        raise CrucibleError(
            f"No row of {source} remains after cleaning, so nothing was written. {' '.join(changes)} Mend the rows in "
            "the file itself."
        )
    lines = "".join(json.dumps(_entry(row), ensure_ascii=False) + "\n" for row in rows)
    write_whole(target, encoded(lines), what="The cleaned copy")
    kept = f"{counted(len(rows), 'row was', 'rows were')} written to {target}"
    if not changes:
        return f"{kept}. Nothing had to be changed but the form: each row is messages or a text now."
    return "\n".join([f"{kept}. {source} is unchanged.", *(f"- {change}" for change in changes)])


def _entry(row: Row) -> dict[str, object]:
    if not row.turns:
        return {"text": row.text}
    return {"messages": [{"role": turn.role, "content": turn.text} for turn in row.turns]}
