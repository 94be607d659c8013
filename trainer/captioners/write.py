"""Writing of captions to disk. Replaced files are kept beside the new ones under names that are never reused."""

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
    """Check, before captioning starts, that captions can be written into a dataset's folder.

    Raises:
        CrucibleError: the folder is read-only, or is that of the demo dataset.
    """
    if folder.resolve() == DATASET_DIR.resolve():
        raise CrucibleError(
            f"The captions of the demo dataset ({folder}) belong to the package and cannot be replaced. Choose to "
            "write nothing, or caption a folder of your own."
        )
    if not os.access(folder, os.W_OK):
        raise CrucibleError(
            f"The folder {folder} cannot be written to, so the captions could not be saved there. Allow writing to it, "
            "or choose to write nothing: the dataset passes the captions on either way."
        )


def write_sidecars(captions: Mapping[Path, str]) -> list[Path]:
    """Write each image's caption to the text file of the same name, in UTF-8.

    Files that already contain the same text are left alone.

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
    """Write captions as one CSV table with the columns `file_name` (relative to the table) and `text`, in UTF-8.

    If the table already exists, its rows for images that are not in `captions` are kept.

    Returns:
        Whether the file changed.

    Raises:
        CrucibleError: the file cannot be written, or an existing file is not a table of captions.
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
            f"{path} already exists and does not have the columns file_name and text, so its content would be lost. "
            "Move it away, or write to another file."
        )
    name, text = head.index("file_name"), head.index(texts[0])
    return {row[name]: row[text] for row in table[1:] if len(row) > max(name, text)}


def _relative(image: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(image.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return image.resolve().as_posix()


def _replace(path: Path, text: str) -> bool:
    """Write a file completely or not at all, and return whether its content changed."""
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
            f"{path} cannot be written ({error.strerror or error}), so its captions were not saved. Check that the "
            "folder can be written to and that the disk is not full, then start again: images that were already "
            "captioned are not captioned a second time."
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
