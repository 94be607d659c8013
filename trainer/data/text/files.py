"""Finding the files of a text dataset, and reading each into raw rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import CrucibleError
from ...files.text import read_file_text
from ...messages.suggestions import nearest_path
from ...messages.wording import counted, listed
from ..findings import Finding
from ..ignored_names import is_about_the_folder
from ..listing import Listing, list_folder
from .plain_text import plain_rows
from .raw_rows import RawRow, RowProblem, csv_rows, json_rows

JSON_ENDINGS = (".jsonl", ".json", ".ndjson")
TABLE_ENDINGS = (".csv", ".tsv")
TEXT_ENDINGS = (".txt", ".text", ".md")
ALL_ENDINGS = (*JSON_ENDINGS, *TABLE_ENDINGS, *TEXT_ENDINGS)
READ = "JSONL (.jsonl), JSON (.json), CSV (.csv, .tsv) and plain text (.txt, .md)"

OTHER_TEXTS = {
    **dict.fromkeys((".parquet", ".arrow", ".feather"), "Save the table as CSV or JSONL."),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "Save the sheet as CSV."),
    **dict.fromkeys((".docx", ".doc", ".odt", ".rtf", ".pdf", ".epub", ".html", ".htm"), "Save the text as .txt."),
    **dict.fromkeys((".zip", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tar", ".tgz"), "Unpack the archive."),
    **dict.fromkeys((".yaml", ".yml", ".xml", ".sqlite", ".db"), "If it has rows, save them as JSONL."),
}
"""Endings of files that may well hold the rows that the user means, with what to do about each."""

DOCUMENTS = 5
"""From so many text files on, each of them is a document of its own."""

SPLIT_NAMES = ("test", "eval", "evaluation", "valid", "validation", "val", "dev")
"""The names, without ending, of files with rows that other trainers do not train."""


@dataclass(frozen=True)
class SourceFile:
    """What was read from a file.

    Attributes:
        name: its path below the dataset's folder, with forward slashes.
        rows: its rows.
        form: how it was taken apart, such as "60 lines, each a row"; "" for files that consist of rows.
    """

    name: str
    rows: tuple[RawRow, ...]
    form: str = ""


@dataclass(frozen=True)
class Sources:
    """What was read from a file or a folder.

    Attributes:
        files: the files with rows, in the order of their names.
        problems: the rows that cannot be read.
        findings: what the user should know about the files.
    """

    files: tuple[SourceFile, ...]
    problems: tuple[RowProblem, ...]
    findings: tuple[Finding, ...]


def read_sources(path: Path) -> Sources:
    """Read the raw rows of a file, or of all files in a folder and its subfolders.

    Raises:
        CrucibleError: the path does not exist, nothing in it can be read, or a file in it is not text.
    """
    findings: list[Finding] = []
    if path.is_file():
        named = [(path.name, path)]
    elif path.is_dir():
        named = list(_of_folder(path, findings))
    else:
        raise CrucibleError(
            f"The dataset {path.absolute()} does not exist, so there is nothing to train on. "
            f"{nearest_path(path.absolute())} Correct train_data_dir."
        )
    texts = sum(_form(file) == "text" for _, file in named)
    files: list[SourceFile] = []
    problems: list[RowProblem] = []
    for name, file in named:
        source = _read(name, file, texts >= DOCUMENTS, problems, findings)
        if source.rows:
            files.append(source)
    empty = tuple(name for name, _ in named if name not in {file.name for file in files} | {_.file for _ in problems})
    if empty:
        what = f"{counted(len(empty), 'file is', 'files are')} empty"
        findings.append(Finding("empty_files", "warning", what, "Nothing is trained from there.", "", empty))
    if not files and not problems:
        empty_ones = f" ({listed(empty)} {'is' if len(empty) == 1 else 'are'} empty)" if path.is_dir() else ""
        raise CrucibleError(
            f"{path.absolute()} has no rows{empty_ones}, so there is nothing to train on. Write one row per line, "
            'such as {"prompt": "red heart", "answer": "a red heart on a white background"}.'
        )
    return Sources(tuple(files), tuple(problems), tuple(findings))


def _of_folder(folder: Path, findings: list[Finding]) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder that have rows, and add findings about all others.

    Raises:
        CrucibleError: none of them has any.
    """
    try:
        root = list_folder(folder)
    except OSError as error:
        raise CrucibleError(
            f"The folder {folder} cannot be read ({error.strerror or error}), so there is nothing to train on. Check "
            "that you may open it."
        ) from error
    used: list[tuple[str, Path]] = []
    unused: list[str] = []
    other: dict[str, list[str]] = {}
    for listing in root.walk():
        for file in listing.files:
            name = listing.named(file)
            if file.suffix.lower() in OTHER_TEXTS:
                other.setdefault(OTHER_TEXTS[file.suffix.lower()], []).append(name)
            elif file.suffix.lower() in ALL_ENDINGS and not is_about_the_folder(file):
                used.append((name, file))
            else:
                unused.append(name)
    findings += _about_links(root)
    for remedy, names in other.items():
        what = f"{counted(len(names), 'file is', 'files are')} in a format that is not read"
        why = "Nothing is trained from there."
        findings.append(Finding("unread_files", "warning", what, why, remedy, tuple(names)))
    if unused:
        what = f"{counted(len(unused), 'file is', 'files are')} not trained"
        findings.append(Finding("unused_files", "note", what, f"Rows are read from {READ}.", "", tuple(unused)))
    held = tuple(name for name, file in used if file.stem.lower() in SPLIT_NAMES)
    if held and len(held) < len(used):
        what = f"{counted(len(held), 'file has the name', 'files have names')} of rows to test with"
        why = "They are trained like all others here, and rows to measure with are chosen by validation_percent."
        findings.append(Finding("test_files", "warning", what, why, "Move them away if they should not be.", held))
    if not used:
        found = findings[0].text() if findings else "It is empty."
        raise CrucibleError(
            f"The folder {folder.absolute()} has no file with rows, so there is nothing to train on. {found} Rows are "
            f"read from {READ}; put yours there, or choose another folder."
        )
    yield from used


def _about_links(root: Listing) -> Iterator[Finding]:
    broken = tuple(one.named(file) for one in root.walk() for file in one.broken)
    if broken:
        what = f"{counted(len(broken), 'link leads', 'links lead')} nowhere"
        yield Finding("broken_links", "warning", what, "Nothing is trained from there.", "Copy the files here.", broken)
    closed = tuple(f"{one.name}: {one.problem}" for one in root.walk() if one.problem)
    if closed:
        what = f"{counted(len(closed), 'subfolder')} cannot be opened"
        yield Finding("closed_folders", "warning", what, "Nothing is trained from there.", "Allow reading it.", closed)


def _form(file: Path) -> str:
    ending = file.suffix.lower()
    if ending in JSON_ENDINGS:
        return "json"
    return "table" if ending in TABLE_ENDINGS else "text"


def _read(name: str, file: Path, is_document: bool, problems: list[RowProblem], findings: list[Finding]) -> SourceFile:
    read = read_file_text(file)
    if read.guess:
        what = f"{name} is not UTF-8: {read.guess}, which is a guess"
        why, remedy = "If it is wrong, other words are trained.", "Look at its rows, and save it as UTF-8."
        findings.append(Finding("guessed_encoding", "warning", what, why, remedy))
    form, how = _form(file), ""
    found: Iterator[RawRow | RowProblem]
    if form == "text" and file.suffix.lower() not in TEXT_ENDINGS and read.text.lstrip()[:1] in ("{", "["):
        form = "json"
    if form == "text":
        found, how = plain_rows(name, read.text, is_document)
    else:
        found = json_rows(name, read.text) if form == "json" else csv_rows(name, read.text)
    rows: list[RawRow] = []
    for one in found:
        if isinstance(one, RowProblem):
            problems.append(one)
        else:
            rows.append(one)
    return SourceFile(name, tuple(rows), how)
