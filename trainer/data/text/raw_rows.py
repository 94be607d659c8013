"""The rows of JSON files and CSV tables before anything is known of what their keys mean."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...messages.wording import listed
from ..csv_form import allow_long_fields, delimiter_of

LIST_KEYS = ("messages", "conversations", "conversation")
"""Keys of a row whose value is a list; a JSON object with another one holds the rows in it."""


@dataclass(frozen=True)
class RawRow:
    """A row as a file has it.

    Attributes:
        file: the file's path below the dataset's folder.
        place: where in the file it is, such as "line 3".
        value: its values by key, a list of messages, or a text.
    """

    file: str
    place: str
    value: dict[str, Any] | list[Any] | str

    @property
    def name(self) -> str:
        """The file and the place, for messages to the user."""
        return f"{self.file}, {self.place}"


@dataclass(frozen=True)
class RowProblem:
    """A row that cannot be used.

    Attributes:
        file: the file's path below the dataset's folder.
        place: where in the file it is.
        kind: an identifier of the problem for programs.
        what: what is wrong, as a clause that follows the row's name.
        remedy: a sentence that says what to do.
    """

    file: str
    place: str
    kind: str
    what: str
    remedy: str

    @property
    def name(self) -> str:
        """The file and the place, for messages to the user."""
        return f"{self.file}, {self.place}"


def json_rows(file: str, text: str) -> Iterator[RawRow | RowProblem]:
    """Yield the rows of a JSON lines file, a JSON array of rows, an object with one list of rows, or a single row."""
    try:
        whole = json.loads(text)
    except ValueError as error:
        yield from _json_lines(file, text, error)
        return
    if isinstance(whole, dict):
        lists = [key for key, value in whole.items() if isinstance(value, list) and key not in LIST_KEYS]
        columns = [key for key, value in whole.items() if isinstance(value, dict | list)]
        if len(columns) == len(lists) == 1 and all(isinstance(one, dict | list) for one in whole[lists[0]]):
            whole = whole[lists[0]]
        elif len(columns) > 1 and len(columns) == len(whole):
            yield RowProblem(
                file, "the whole file", "columns", f"has its columns one after the other ({listed(columns)}), not rows",
                'Write one row per line (in pandas: to_json(file, orient="records", lines=True)).',
            )  # fmt: skip
            return
    if not isinstance(whole, list) or (whole and _is_message(whole[0])):
        whole = [whole]
    for number, value in enumerate(whole, start=1):
        yield _row(file, f"row {number}", value)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and (value.keys() >= {"role", "content"} or value.keys() >= {"from", "value"})


def _json_lines(file: str, text: str, error: ValueError) -> Iterator[RawRow | RowProblem]:
    first = text.lstrip().split("\n", 1)[0].strip()
    is_one_value = first in ("{", "[") or (first.startswith("[") and not _is_json(first))
    if is_one_value and isinstance(error, json.JSONDecodeError):
        yield RowProblem(
            file, f"line {error.lineno}", "broken_json", f"is not JSON ({error.msg}, column {error.colno})",
            "Mend this place. Nothing below it can be read.",
        )  # fmt: skip
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as wrong:
            shown = line.strip()[:60]
            yield RowProblem(
                file, place, "broken_json", f"is not JSON ({wrong.msg}, column {wrong.colno}): {shown}",
                "Mend the line; each must be a complete JSON object.",
            )  # fmt: skip
        else:
            yield _row(file, place, value)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _row(file: str, place: str, value: Any) -> RawRow | RowProblem:
    if isinstance(value, dict | list | str):
        return RawRow(file, place, value)
    what = f"is {json.dumps(value)[:60]}, not an object with keys"
    return RowProblem(file, place, "no_row", what, 'Write a row like {"prompt": "…", "answer": "…"}.')


def csv_rows(file: str, text: str) -> Iterator[RawRow | RowProblem]:
    """Yield the rows of a CSV table whose first line names its columns."""
    allow_long_fields()
    start = len(text) - len(text.lstrip("\n"))
    reader = csv.reader(
        io.StringIO(text[start:], newline=""), delimiter=delimiter_of(text[start:].split("\n", 1)[0]), strict=True
    )
    header: list[str] = []
    begun = start + 1
    try:
        for cells in reader:
            place, begun = f"line {begun}", start + reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                continue
            while len(cells) > len(header) and not cells[-1].strip():
                cells = cells[:-1]
            if len(cells) != len(header):
                what = f"has {len(cells)} cells for {len(header)} columns ({listed(header)})"
                remedy = 'Put cells that contain commas between quotation marks ("…").'
                yield RowProblem(file, place, "cells", what, remedy)
                continue
            yield RawRow(file, place, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        what = f"is not CSV ({error})"
        remedy = 'Close the quotation mark, and write those inside a cell twice (""). Nothing below can be read.'
        yield RowProblem(file, f"line {begun}", "broken_csv", what, remedy)
