"""Reading a file or folder as rows, with everything that is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...messages.suggestions import nearest_names
from ...messages.wording import counted, listed
from ..findings import Finding
from .files import Sources, read_sources
from .kinds import TITLES, read_row, used_keys
from .question_texts import read_questions
from .raw_rows import RawRow, RowProblem
from .roles import is_empty, role_problem
from .rows import Row

CLEAN = "A copy without these rows is written by: check CONFIG --clean FILE"
"""What helps with every row that cannot be read."""


@dataclass(frozen=True)
class ReadRows:
    """The rows of a file or folder.

    Attributes:
        rows: the rows that can be trained.
        faulty: the rows that were read, but have the wrong roles or nothing to train.
        problems: what cannot be used, and why.
        empty: the names of the rows that have nothing to train.
        layout: sentences about the kinds of rows and how they were read.
        findings: what the user should know.
    """

    rows: tuple[Row, ...]
    faulty: tuple[Row, ...]
    problems: tuple[RowProblem, ...]
    empty: tuple[str, ...]
    layout: tuple[str, ...]
    findings: tuple[Finding, ...]


def read_rows(path: Path, columns: Mapping[str, str], *, may_ask: bool = False) -> ReadRows:
    """Read the rows of a file or folder.

    Args:
        path: the file or folder.
        columns: the keys by their meaning as the user named them; empty to recognize them.
        may_ask: whether a row may be a prompt without an answer, which the model is to write.

    Raises:
        CrucibleError: the path does not exist, or nothing in it can be read.
    """
    return rows_of(read_sources(path), columns, may_ask=may_ask, remedy=CLEAN)


def rows_of(sources: Sources, columns: Mapping[str, str], *, may_ask: bool = False, remedy: str = "") -> ReadRows:
    """Return the rows of what was read from files, or came from elsewhere.

    Args:
        sources: the raw rows.
        columns, may_ask: as for `read_rows`.
        remedy: a sentence on what helps with every row that cannot be read, or "".
    """
    problems = list(sources.problems)
    read: list[Row] = []
    for file in sources.files:
        for raw in file.rows:
            row = read_row(raw, columns, may_ask=may_ask)
            if isinstance(row, RowProblem):
                problems.append(row)
            else:
                read.append(row)
    filled = [row for row in read if not is_empty(row, may_ask=may_ask)]
    filled_rows, marks, odd = read_questions(filled)
    wrong = {row: problem for row in filled_rows if (problem := role_problem(row, may_ask=may_ask))}
    problems += wrong.values()
    rows = tuple(row for row in filled_rows if row not in wrong)
    kept = set(filled)
    empty = [row for row in read if row not in kept]
    unread = [
        replace(one, consequence="No row is left out without your knowing.", remedy=f"{one.remedy} {remedy}".strip())
        for one in problem_findings(problems)
    ]
    findings = [
        *sources.findings,
        *_about_columns(sources, columns, read),
        *unread,
        *_about_empty(empty),
        *_about_odd(odd, len(filled)),
    ]
    findings += _about_kinds(rows)
    return ReadRows(
        rows,
        (*wrong, *empty),
        tuple(problems),
        tuple(row.name for row in empty),
        tuple(_layout(sources, rows, columns, marks)),
        tuple(findings),
    )


def problem_findings(problems: Sequence[RowProblem]) -> Iterator[Finding]:
    """Yield a finding for all problems of each kind; the first three are told in full."""
    by_kind: dict[str, list[RowProblem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    for kind, those in by_kind.items():
        told = "; ".join(f"{one.name} {one.what}" for one in those[:3])
        rest = [one.name for one in those[3:]]
        more = f"; and {counted(len(rest), 'more row')}: {listed(rest)}" if rest else ""
        remedies = " ".join(dict.fromkeys(one.remedy for one in those[:3]))
        yield Finding(f"row_{kind}", "error", f"{told}{more}", "", remedies)


def _about_columns(sources: Sources, columns: Mapping[str, str], read: Sequence[Row]) -> Iterator[Finding]:
    """Yield a finding about columns that no row has although other columns of the setting were found."""
    keys = list(dict.fromkeys(str(key) for file in sources.files for raw in file.rows for key in _keys(raw)))
    for meaning, key in columns.items():
        if read and key not in keys:
            what = f"text_columns says that the {meaning} is under {key!r}, but no row has this key"
            why = f"It would be taken as empty. The rows have {listed(keys)}." if keys else "The rows have no keys."
            near = nearest_names(key, keys)
            remedy = f"Write {meaning}={near[0]}." if near else f"Correct text_columns, or leave {meaning} out of it."
            yield Finding("unknown_columns", "error", what, why, remedy)


def _keys(raw: RawRow) -> Iterable[object]:
    return raw.value if isinstance(raw.value, dict) else ()


def _about_empty(rows: Sequence[Row]) -> Iterator[Finding]:
    if rows:
        what = f"{counted(len(rows), 'row has', 'rows have')} no text or no answer"
        why = "They are left out: the model would learn to say nothing."
        yield Finding(
            "empty_rows", "warning", what, why, "Fill them in, or delete them.", tuple(row.name for row in rows)
        )


def _about_odd(odd: Sequence[str], count: int) -> Iterator[Finding]:
    if odd:
        what = f"{count - len(odd)} of {count} texts are written as questions and answers (such as Q: … A: …), not all"
        why = "Because of the others, all texts are trained whole, questions included."
        yield Finding("odd_texts", "warning", what, why, "Write the others alike, or take them out.", tuple(odd))


def _about_kinds(rows: Sequence[Row]) -> Iterator[Finding]:
    """Yield a finding for each file with rows of several layouts."""
    kinds: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        file = row.name.rpartition(", ")[0]
        kinds.setdefault(file, {}).setdefault(row.kind, []).append(row.name)
    for file, found in kinds.items():
        if len(found) > 1:
            counts = ", ".join(f"{len(names)} of {TITLES[kind]}" for kind, names in found.items())  # type: ignore[index]
            fewest = tuple(found[min(found, key=lambda kind: len(found[kind]))])
            what = f"{file} has rows of several layouts: {counts}; the fewest are"
            why = "They are all trained, but keys that change are often a mistake."
            yield Finding("mixed_kinds", "warning", what, why, "Look at these rows.", fewest)


def _layout(sources: Sources, rows: Sequence[Row], columns: Mapping[str, str], marks: Sequence[str]) -> Iterator[str]:
    counts = Counter(row.kind for row in rows)
    for kind, count in counts.most_common():
        yield f"{counted(count, 'row')} of the layout {TITLES[kind]}"
    if columns:
        yield "Columns as set: " + ", ".join(f"{meaning}={key}" for meaning, key in columns.items())
    used: set[str] = set()
    keys: set[str] = set()
    for file in sources.files:
        for raw in file.rows:
            if isinstance(raw.value, dict):
                keys.update(map(str, raw.value))
                used |= used_keys(raw, columns)
    if others := sorted(keys - used):
        yield f"Keys that are not trained: {listed(others)}"
    forms = [f"{file.name} ({file.form})" for file in sources.files if file.form]
    if forms:
        yield f'Taken apart: {listed(forms)}. To choose the rows yourself, write them as JSONL: {{"text": "…"}}'
    if marks:
        yield f"Every text reads {' or '.join(marks)}, so only what answers is trained, and the marks are left out"
    elif counts["text"]:
        yield "Texts are trained whole, followed by the stop token"
