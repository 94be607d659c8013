"""The rows of tables of captions, in CSV and JSON, as people and programs write them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import CrucibleError
from ..csv_form import allow_long_fields, delimiter_of
from .file_kinds import has_image_name

FILE_KEYS = ("file_name", "filename", "file", "image", "image_path", "path")
TEXT_KEYS = ("text", "prompt", "caption", "captions")


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        place: where it is, such as "line 3".
        name: the name of its image, or "".
        captions: its captions.
        problem: why it cannot be used, or "".
        mended: what was wrong with it and how it was read, or "".
    """

    place: str
    name: str = ""
    captions: tuple[str, ...] = ()
    problem: str = ""
    mended: str = ""


def json_rows(text: str) -> Iterator[Row]:
    """Yield the rows of a JSON lines file, of a JSON array of objects, or of an object with a member for each image."""
    try:
        whole = json.loads(text)
    except ValueError:
        yield from _json_lines(text)
        return
    if isinstance(whole, dict) and any(key in whole for key in FILE_KEYS):
        whole = [whole]
    if isinstance(whole, dict):
        members = whole.items()
        whole = [{"file_name": name, **(one if isinstance(one, dict) else {"text": one})} for name, one in members]
    for number, entry in enumerate(whole if isinstance(whole, list) else [whole], start=1):
        yield _json_row(f"entry {number}", entry)


def _json_lines(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            yield Row(place, problem=f"it is not JSON ({error})")
        else:
            yield _json_row(place, entry)


def _json_row(place: str, entry: Any) -> Row:
    if not isinstance(entry, dict):
        return Row(place, problem="it is not a JSON object with file_name and text")
    name = next((entry[key] for key in FILE_KEYS if isinstance(entry.get(key), str)), None)
    found = next((entry[key] for key in TEXT_KEYS if key in entry), None)
    texts = found if isinstance(found, list) else [found]
    if name is None:
        return Row(place, problem=f"it has no file_name, only {', '.join(entry) or 'nothing'}")
    captions = tuple(one for one in texts if isinstance(one, str))
    if len(captions) < len(texts):
        return Row(place, problem=f"{name} has no text, only {', '.join(entry)}")
    return Row(place, name, captions)


def csv_rows(text: str, path: Path, is_listed: Callable[[str], bool]) -> Iterator[Row]:
    """Yield the rows of a CSV table, with a header or without.

    A quotation mark that is not closed would take in the rows below it. They are read as rows where a line begins like
    one, with the name of an image.

    Args:
        path: the file, for messages.
        is_listed: whether a name without ending is that of an image.

    Raises:
        CrucibleError: the header has no column for the captions.
    """
    allow_long_fields()
    lines = text.split("\n")
    first = next((line for line in lines if line.strip()), "")
    form = _Form(delimiter_of(first), is_listed)
    place, has_begun = 0, False
    while place < len(lines):
        for row, count in form.records(lines, place):
            number, place = place + 1, place + count
            if not any(cell.strip() for cell in row):
                continue
            if not has_begun:
                has_begun = True
                if form.reads_header(row, path):
                    continue
            record = lines[number - 1 : place]
            below = next((index for index in range(1, count) if form.is_row(record[index])), None)
            if below is None:
                yield form.row(number, row)
                continue
            yield form.unclosed(number, record[:below])
            place = number - 1 + below
            break  # the lines below are read anew
        else:
            if place < len(lines):  # a field that is too long, by an unclosed quotation mark or a broken file
                yield form.unclosed(place + 1, lines[place : place + 1])
                place += 1


@dataclass
class _Form:
    """How the rows of a CSV table are written."""

    delimiter: str
    is_listed: Callable[[str], bool]
    name: int = 0
    text: int = 1
    columns: int = 2

    def records(self, lines: Sequence[str], start: int) -> Iterator[tuple[list[str], int]]:
        """Yield the cells of each record from a line on, with the number of lines it takes; stops at a broken one."""
        reader = self._reader([f"{line}\n" for line in lines[start:]])
        last = 0
        try:
            for row in reader:
                yield row, reader.line_num - last
                last = reader.line_num
        except csv.Error:
            return

    def reads_header(self, row: Sequence[str], path: Path) -> bool:
        """Take the columns from a row if it is a header, and return whether it is.

        Raises:
            CrucibleError: it has no column for the captions.
        """
        header = [cell.strip().lower() for cell in row]
        if not any(key in header for key in FILE_KEYS):
            return False
        self.name = next(header.index(key) for key in FILE_KEYS if key in header)
        self.text = next((header.index(key) for key in TEXT_KEYS if key in header), -1)
        self.columns = len(header)
        if self.text < 0:
            raise CrucibleError(
                f"{path} has the columns {', '.join(row)}, but none for the captions, so it cannot be used. Rename the "
                "column with the captions to text. If the captions are in text files, set caption_source to sidecar."
            )
        return True

    def is_row(self, line: str) -> bool:
        """Return whether a line begins like a row of its own, with the name of an image in its place."""
        cells = self._cells([line])
        if len(cells) <= max(self.name, self.text):
            return False
        name = cells[self.name].strip().strip('"')
        return has_image_name(PurePosixPath(name)) or self.is_listed(name)

    def row(self, number: int, cells: list[str], mended: str = "") -> Row:
        """Return a row from its cells; too many of them come from commas in a caption without quotation marks."""
        place = f"line {number}"
        while len(cells) > self.columns and not cells[-1].strip():
            cells = cells[:-1]
        more, name = max(0, len(cells) - self.columns), self.name
        if more:
            parts = [cell.strip() for cell in cells[self.text : self.text + more + 1]]
            if self.text < self.columns - 1:
                cause = "and was read as a caption with commas"
                mended = mended or f"it has {len(cells)} cells for {self.columns} columns, {cause}"
            cells = [*cells[: self.text], f"{self.delimiter} ".join(parts), *cells[self.text + more + 1 :]]
        if len(cells) <= max(name, self.text):
            return Row(place, problem=f"{cells[0].strip()} has no caption")
        return Row(place, cells[name], (cells[self.text],), mended=mended)

    def unclosed(self, number: int, lines: Sequence[str]) -> Row:
        """Return the row in lines with a quotation mark that is not closed."""
        cells = self._cells([*(f"{line}\n" for line in lines[:-1]), f'{lines[-1].rstrip()}"'])
        if len(cells) <= max(self.name, self.text):
            cells = [cell.strip().removeprefix('"') for cell in " ".join(lines).split(self.delimiter)]
        mended = "a quotation mark is not closed, and the caption was taken to end before the next row"
        return self.row(number, cells, mended)

    def _cells(self, lines: list[str]) -> list[str]:
        try:
            return next(self._reader(lines), [])
        except csv.Error:
            return []

    def _reader(self, lines: list[str]) -> Any:
        return csv.reader(lines, delimiter=self.delimiter, skipinitialspace=True)
