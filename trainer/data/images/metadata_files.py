"""Captions stored together in a metadata.csv or metadata.jsonl file."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import CrucibleError
from ...files.text import portable, read_file_text
from ...messages.suggestions import nearest_names, nearest_path

METADATA_FILES = ("metadata.jsonl", "metadata.csv")
"""The file names that are looked for; if a folder has both, captions in the first take precedence."""

FILE_KEYS = ("file_name", "filename", "file", "image", "image_path", "path")
TEXT_KEYS = ("text", "prompt", "caption", "captions")

LONGEST_FIELD = 1_000_000
"""The most characters in a CSV field; Python's default is 131,072."""


@dataclass(frozen=True)
class MetadataFile:
    """The captions in one metadata file.

    Attributes:
        path: the file.
        captions: the captions by the normalised name of their image, in the order of the file.
        unread: what is wrong with each line that could not be used.
        guess: what was guessed about the encoding of the file, or "".
    """

    path: Path
    captions: dict[str, tuple[str, ...]]
    unread: tuple[str, ...]
    guess: str = ""

    def of(self, name: str) -> tuple[str, ...]:
        """Return the captions of an image, found by its path in the dataset or its file name, or either's stem."""
        return self.captions.get(self.key_of(name) or "", ())

    def key_of(self, name: str) -> str | None:
        """Return the name under which the file lists an image, or None if it does not."""
        path = PurePosixPath(normalised(name))
        candidates = (str(path), path.name, str(path.with_suffix("")), path.stem)
        return next((key for key in candidates if key in self.captions), None)

    def matched_to(self, names: Iterable[str]) -> MetadataFile:
        """Return the file with rows found by the last part of their path, where that leaves no doubt.

        Tables made elsewhere have paths of another folder or computer, such as C:\\cats\\1.png.
        """
        names = list(names)
        used = {self.key_of(name) for name in names}
        by_last: dict[str, list[str]] = {}
        for key in self.captions:
            if key not in used and "/" in key:
                by_last.setdefault(PurePosixPath(key).name, []).append(key)
        images: dict[str, list[str]] = {}
        for name in names:
            if self.key_of(name) is None:
                images.setdefault(PurePosixPath(normalised(name)).name, []).append(normalised(name))
        moved = {
            keys[0]: images[last][0]
            for last, keys in by_last.items()
            if len(keys) == 1 and len(images.get(last, ())) == 1
        }
        return replace(self, captions={moved.get(key, key): texts for key, texts in self.captions.items()})

    def without_image(self, names: Iterable[str]) -> list[str]:
        """Return the names in this file that match none of the images."""
        used = {self.key_of(name) for name in names}
        return [key for key in self.captions if key not in used]


def normalised(name: str) -> str:
    """Return the canonical spelling of a path, with composed letters, forward slashes and no leading ./"""
    return portable(unicodedata.normalize("NFC", name.strip())).replace("\\", "/").removeprefix("./")


def metadata_files(folder: Path, metadata_path: str | None) -> list[Path]:
    """Return the metadata files of a dataset: the one that the user named, or those in its folder.

    Raises:
        CrucibleError: the file that the user named does not exist.
    """
    if metadata_path is None:
        return [folder / name for name in METADATA_FILES if (folder / name).is_file()]
    written = Path(metadata_path).expanduser()
    path = written if written.is_absolute() else folder / written
    if not path.is_file():
        raise CrucibleError(
            f"metadata_path is {metadata_path!r}, but there is no file {path}, so the captions are unknown. "
            f"{nearest_path(path)} Correct the path."
        )
    return [path]


def misspelt_metadata(folder: Path) -> str | None:
    """Return the name of a file that was probably meant to be one of `METADATA_FILES`, if there is none of these."""
    if any((folder / name).exists() for name in METADATA_FILES):
        return None
    tables = [entry.name for entry in folder.iterdir() if entry.suffix.lower() in (".csv", ".jsonl", ".json")]
    near = [name for wanted in METADATA_FILES for name in nearest_names(wanted, tables)]
    return near[0] if near else None


def read_metadata(path: Path) -> MetadataFile:
    """Read a metadata file, as JSON lines or as CSV depending on its extension.

    A CSV file may have a header (`file_name` and `text`, `prompt` or `caption`, in any order, among other columns) or
    none (name, then caption). Several lines for one image are several captions of it.

    Raises:
        CrucibleError: the file cannot be read, or none of its lines has an image and a caption.
    """
    read = read_file_text(path)
    text = read.text
    rows = _json_rows(text) if path.suffix.lower() == ".jsonl" else _table_rows(text, path)
    captions: dict[str, list[str]] = {}
    unread = []
    for number, row in rows:
        if isinstance(row, str):
            unread.append(f"line {number}: {row}")
            continue
        name, texts = row
        folded = [" ".join(one.split()) for one in texts]
        captions.setdefault(normalised(name), []).extend(one for one in folded if one)
    if not captions:
        found = f" ({unread[0]})" if unread else ""
        raise CrucibleError(
            f"{path} names no image with a caption{found}, so it cannot be used. "
            "Write one line per image: file_name,text in a .csv, or "
            '{"file_name": "1.png", "text": "a cat"} in a .jsonl.'
        )
    return MetadataFile(
        path, {name: tuple(dict.fromkeys(found)) for name, found in captions.items()}, tuple(unread), read.guess
    )


Row = tuple[str, list[str]] | str
"""The name of an image with its captions, or what is wrong with the line."""


def _json_rows(text: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            yield number, f"it is not JSON ({error})"
            continue
        if not isinstance(entry, dict):
            yield number, "it is not a JSON object with file_name and text"
            continue
        yield number, _json_row(entry)


def _json_row(entry: dict[str, Any]) -> Row:
    name = next((entry[key] for key in FILE_KEYS if isinstance(entry.get(key), str)), None)
    found = next((entry[key] for key in TEXT_KEYS if key in entry), None)
    texts = found if isinstance(found, list) else [found]
    if name is None:
        return f"it has no file_name, only {', '.join(entry) or 'nothing'}"
    captions = [one for one in texts if isinstance(one, str)]
    if len(captions) < len(texts):
        return f"{name} has no text, only {', '.join(entry)}"
    return name, captions


def _table_rows(text: str, path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(LONGEST_FIELD)
    first = text.split("\n", 1)[0]
    delimiter = next((one for one in "\t,;" if one in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    name_column, text_column, columns = 0, 1, 2
    last = 0
    try:
        for row in reader:
            number, last = last + 1, reader.line_num
            if not any(cell.strip() for cell in row):
                continue
            if swallowed := _swallowed_rows(row, delimiter):
                yield number, "a quotation mark is not closed, so the lines below were read as rows of their own"
                for offset, line in enumerate(swallowed):
                    plain = next(csv.reader([line], delimiter=delimiter, quoting=csv.QUOTE_NONE, skipinitialspace=True))
                    yield number + offset, _table_row(plain, name_column, text_column, columns, delimiter)
                continue
            header = [cell.strip().lower() for cell in row]
            if number == 1 and any(key in header for key in FILE_KEYS):
                name_column = next(header.index(key) for key in FILE_KEYS if key in header)
                text_column = next((header.index(key) for key in TEXT_KEYS if key in header), -1)
                columns = len(header)
                if text_column < 0:
                    raise CrucibleError(
                        f"{path} has the columns {', '.join(row)}, but none for the captions. Rename the column "
                        "with the captions to text."
                    )
                continue
            yield number, _table_row(row, name_column, text_column, columns, delimiter)
    except csv.Error as error:
        yield last + 1, f"it is not valid CSV ({error})"


_ROW = re.compile(r"\s*[^\s,;]+\.\w{2,5}\s*[,;\t]")
"""The beginning of a line that is a row of its own: the name of a file."""


def _swallowed_rows(row: list[str], delimiter: str) -> list[str]:
    """Return the lines of a row that has taken in the rows below it by a quotation mark that is not closed."""
    lines = [line for line in delimiter.join(row).split("\n") if line.strip()]
    return lines if len(lines) > 1 and any(_ROW.match(line) for line in lines[1:]) else []


def _table_row(row: list[str], name_column: int, text_column: int, columns: int, delimiter: str) -> Row:
    if len(row) > columns and text_column == columns - 1:
        # The caption contains commas but is not quoted.
        row = [*row[:text_column], f"{delimiter} ".join(cell.strip() for cell in row[text_column:])]
    if len(row) <= max(name_column, text_column):
        return f"{row[0]} has no caption"
    return row[name_column], [row[text_column]]
