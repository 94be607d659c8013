"""Rendering all rows of a dataset, and what is to be said about those that do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...config.text_settings import LongRows
from ...messages.wording import counted
from ..findings import Finding
from .long_rows import AnswerTooLong, FittedRow, fitted
from .raw_rows import RowProblem
from .read import problem_findings
from .rendering import Renderer, UnrenderableRow
from .rows import Row


def render_rows(
    renderer: Renderer, rows: Sequence[Row], longest: int, long_rows: LongRows
) -> tuple[dict[Row, FittedRow], frozenset[Row], list[Finding]]:
    """Render rows, and do what `long_rows` says with those of more than `longest` tokens.

    Returns:
        The tokens of the rows that are trained, the rows that are left out, and what the user should know. Rows that
        cannot be rendered are in neither of the first two; a finding of severity error names them.
    """
    found: dict[Row, FittedRow] = {}
    left_out: list[Row] = []
    problems: list[RowProblem] = []
    for row in rows:
        try:
            one = fitted(renderer, row, longest, long_rows)
        except UnrenderableRow as error:
            what, dot, remedy = str(error).partition(". ")
            file, _, place = row.name.rpartition(", ")
            kind = "answer_cut" if isinstance(error, AnswerTooLong) else "template"
            problems.append(RowProblem(file, place, kind, what, remedy if dot else ""))
            continue
        if one.parts:
            found[row] = one
        else:
            left_out.append(row)
    return found, frozenset(left_out), [*problem_findings(problems), *_about_length(found, left_out, longest)]


def _about_length(fitted: dict[Row, FittedRow], left_out: Sequence[Row], longest: int) -> Iterator[Finding]:
    limit = f"longer than {longest:,} tokens"
    cut = tuple(row.name for row, one in fitted.items() if one.outcome == "cut")
    if cut:
        what = f"{counted(len(cut), 'conversation is', 'conversations are')} {limit}"
        why = "The front of the prompt is cut, so the answer is trained without it."
        remedy = "If it matters, raise max_seq_length, or set long_rows to leave_out."
        yield Finding("cut_prompts", "warning", what, why, remedy, cut)
    split = tuple(row.name for row, one in fitted.items() if one.outcome == "split")
    if split:
        what = f"{counted(len(split), 'text is', 'texts are')} {limit}"
        yield Finding("split_texts", "note", what, "Each is trained in several parts.", "", split)
    if left_out:
        what = f"{counted(len(left_out), 'row is', 'rows are')} {limit} and left out, as long_rows says"
        remedy = "To train them, raise max_seq_length, or set long_rows to auto."
        yield Finding("left_out", "warning", what, "", remedy, tuple(row.name for row in left_out))
