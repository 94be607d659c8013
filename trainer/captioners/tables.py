"""Tables of captions that are changed without losing anything else that is in them."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.csv_form import allow_long_fields
from ..data.images.metadata_files import normalised
from ..data.images.table_rows import FILE_KEYS, TEXT_KEYS
from ..errors import CrucibleError
from ..files.text import read_text

TABLE_ENDINGS = {".csv": ",", ".tsv": "\t", ".jsonl": ""}
"""The endings of tables, each with what separates the columns of a new one."""

COLUMNS = ("file_name", "text")


class CaptionTable(ABC):
    """A table with rows of images and captions, among other columns."""

    @abstractmethod
    def listed(self) -> set[str]:
        """Return the names of images in the table, in their canonical spelling."""

    @abstractmethod
    def put(self, name: str, caption: str) -> None:
        """Replace the first caption of an image, or add a row for it; its other captions stay."""

    @abstractmethod
    def text(self) -> str:
        """Return the content of the file."""


def open_table(path: Path) -> CaptionTable:
    """Read an existing table of captions, or begin a new one if the file does not exist.

    Raises:
        CrucibleError: the ending is not that of a table, or the file is something else than a table of captions.
    """
    ending = path.suffix.lower()
    if ending not in TABLE_ENDINGS:
        raise CrucibleError(
            f"Captions cannot be written to {path}, because the ending {path.suffix or 'is missing and'} does not say "
            f"in which form. Choose a name that ends with one of these: {', '.join(TABLE_ENDINGS)}."
        )
    text = read_text(path) if path.exists() else ""
    return _JsonLines(path, text) if ending == ".jsonl" else _Columns(path, text, TABLE_ENDINGS[ending])


def _not_captions(path: Path) -> CrucibleError:
    return CrucibleError(
        f"{path} already exists and does not have the columns {' and '.join(COLUMNS)}, so its content would be lost. "
        "Move it away, or write to another file."
    )


class _Columns(CaptionTable):
    def __init__(self, path: Path, text: str, delimiter: str) -> None:
        allow_long_fields()
        first = text.split("\n", 1)[0]
        self._delimiter = next((one for one in "\t,;" if one in first), delimiter)
        try:
            self._rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            raise CrucibleError(
                f"{path} already exists and is not a valid table ({error}), so captions in it could be lost. Correct "
                "it, move it away, or write to another file."
            ) from error
        if not self._rows:
            self._rows = [list(COLUMNS)]
        head = [name.strip().lower() for name in self._rows[0]]
        names = [head.index(key) for key in FILE_KEYS if key in head]
        texts = [head.index(key) for key in TEXT_KEYS if key in head]
        if not names or not texts:
            raise _not_captions(path)
        self._name, self._text = names[0], texts[0]

    def listed(self) -> set[str]:
        return {normalised(row[self._name]) for row in self._rows[1:] if len(row) > self._name}

    def put(self, name: str, caption: str) -> None:
        row = next(
            (row for row in self._rows[1:] if len(row) > self._name and normalised(row[self._name]) == name), None
        )
        if row is None:
            row = []
            self._rows.append(row)
        row += [""] * (len(self._rows[0]) - len(row))
        row[self._name], row[self._text] = row[self._name] or name, caption

    def text(self) -> str:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerows(self._rows)
        return text.getvalue()


class _JsonLines(CaptionTable):
    def __init__(self, path: Path, text: str) -> None:
        self._lines = [line for line in text.split("\n") if line.strip()]
        self._entries = [_entry(line) for line in self._lines]
        if self._lines and not any(self._entries):
            raise _not_captions(path)

    def listed(self) -> set[str]:
        return {_name(entry) for entry in self._entries if entry}

    def put(self, name: str, caption: str) -> None:
        places = [index for index, entry in enumerate(self._entries) if entry and _name(entry) == name]
        if not places:
            self._entries.append(dict(zip(COLUMNS, (name, caption), strict=True)))
            self._lines.append("")
            places = [len(self._lines) - 1]
        entry = self._entries[places[0]]
        key = next((key for key in TEXT_KEYS if key in entry), COLUMNS[1])
        others = entry[key][1:] if isinstance(entry.get(key), list) else None
        entry[key] = caption if others is None else [caption, *others]
        self._lines[places[0]] = json.dumps(entry, ensure_ascii=False)

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)


def _entry(line: str) -> dict[str, Any]:
    """Return what a line says about an image; an empty dictionary if it says nothing that can be read."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) and _name(entry) else {}


def _name(entry: Mapping[str, Any]) -> str:
    found = next((entry[key] for key in FILE_KEYS if isinstance(entry.get(key), str)), "")
    return normalised(found)
