"""Writes captions to disk. What is replaced is kept beside it under another name, which is never reused."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..data.images.captions import caption_paths
from ..demo import DATASET_DIR
from ..errors import CrucibleError
from ..files.text import read_text

METADATA_FILE = "metadata.csv"
COLUMNS = ("file_name", "text")


def check_writable(folder: Path) -> None:
    """Before captioning starts: whether captions can be written into a dataset's folder.

    Raises:
        CrucibleError: they cannot.
    """
    if folder.resolve() == DATASET_DIR.resolve():
        raise CrucibleError(
            f"The captions of the demo dataset ({folder}) belong to the package and cannot be replaced. Write nothing, "
            "or caption a folder of your own."
        )
    if not os.access(folder, os.W_OK):
        raise CrucibleError(
            f"The folder {folder} cannot be written to, so the captions would have no place. Allow writing to it, or "
            "write nothing: the captions travel in the dataset all the same."
        )


def write_sidecars(captions: Mapping[Path, str]) -> list[Path]:
    """Writes each image's caption into the text file of its name, in UTF-8.

    Files that hold the same text already are left alone.

    Returns:
        The files that were written.

    Raises:
        CrucibleError: a file cannot be written.
    """
    written = []
    for image, caption in captions.items():
        path = next(iter(caption_paths(image)), image.with_suffix(".txt"))
        if _replace(path, caption + "\n"):
            written.append(path)
    return written


def write_metadata(path: Path, captions: Mapping[Path, str]) -> bool:
    """Writes captions as one table, columns `file_name` (relative to the table) and `text`, in UTF-8.

    Rows of a table that is there already are kept for images that `captions` has not.

    Returns:
        Whether anything changed.

    Raises:
        CrucibleError: the file cannot be written, or the one that is there is no table of captions.
    """
    rows = _rows(path) if path.exists() else {}
    for image, caption in captions.items():
        rows[_relative(image, path.parent)] = caption
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(rows.items())
    return _replace(path, text.getvalue())


def _rows(path: Path) -> dict[str, str]:
    table = list(csv.reader(io.StringIO(read_text(path))))
    head = [name.strip().lower() for name in table[0]] if table else []
    texts = [name for name in ("text", "prompt", "caption") if name in head]
    if "file_name" not in head or not texts:
        raise CrucibleError(
            f"{path} is there already and has no columns file_name and text, so its captions would be lost. Move it "
            "away, or write to another file."
        )
    name, text = head.index("file_name"), head.index(texts[0])
    return {row[name]: row[text] for row in table[1:] if len(row) > max(name, text)}


def _relative(image: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(image.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return image.resolve().as_posix()


def _replace(path: Path, text: str) -> bool:
    """Write a file whole or not at all; returns whether it was needed."""
    content = text.encode("utf-8", "replace")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.exists():
            if path.read_bytes() == content:
                return False
            _back_up(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CrucibleError(
            f"{path} cannot be written ({error.strerror or error}), so its caption is not on disk. Check that the "
            "folder may be written to and that the disk is not full, then start again: what was captioned is not "
            "captioned anew."
        ) from error
    return True


def _back_up(path: Path) -> None:
    for name in _backup_names(path.name):
        try:
            with open(path.with_name(name), "xb") as file:
                file.write(path.read_bytes())
            return
        except FileExistsError:
            continue


def _backup_names(name: str) -> Iterable[str]:
    yield f"{name}.bak"
    count = 2
    while True:
        yield f"{name}.bak{count}"
        count += 1
