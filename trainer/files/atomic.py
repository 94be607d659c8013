"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO

from ..errors import CrucibleError
from ..messages.wording import size_text

TEMPORARY = ".crucible-"
"""How the name of a file begins that is being written, before its own; a killed process may leave one."""


def write_whole(path: Path, *parts: bytes | memoryview, what: str) -> int:
    """Write the parts one after the other as one file, creating its folder; returns its size in bytes.

    The file appears under `path` complete or not at all; one that is already there stays whole until then.

    Args:
        what: is written, as the subject of an error's first sentence.

    Raises:
        CrucibleError: the disk is full, the folder may not be written to, or the system fails otherwise.
    """
    size = sum(map(len, parts))
    with whole_file(path, what=what, size=size) as file:
        for part in parts:
            file.write(part)
    return size


@contextmanager
def whole_file(path: Path, *, what: str, size: int) -> Iterator[BinaryIO]:
    """A file to write to that appears under `path` at the end, complete or not at all.

    Args:
        size: in bytes, for the error.

    Raises:
        CrucibleError: as `write_whole`.
    """
    with explained(path, what, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another ending, so that no list of LoRAs shows it; not tempfile, whose files only their owner reads.
        temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def delete_unfinished(folder: Path, name: str | None = None) -> None:
    """Delete what killed processes left in a folder of files of one name, or of all. Nobody may be writing them now."""
    for path in folder.glob(f"{TEMPORARY}{'*' if name is None else escape(name)}-????????.tmp"):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def require_writable(folder: Path, what: str) -> None:
    """Write a byte into the folder, which is created where it is missing, and take it away again.

    Args:
        what: is to be saved there, as the subject of an error's first sentence.

    Raises:
        CrucibleError: no file can be written there.
    """
    probe = folder / f"{TEMPORARY}{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"0")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        cause, remedy = _cause_and_remedy(folder, error)
        raise CrucibleError(
            f"{what} could not be saved to {folder}: {cause}. So nothing was begun. {remedy}, or choose another "
            "folder; start again."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make new names in it survive a power cut, where the system can (Windows cannot open folders)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def explained(path: Path, what: str, size: int | None = None) -> Iterator[None]:
    """Turn the system's errors while writing `size` bytes to `path` into ones that say what to do."""
    try:
        yield
    except OSError as error:
        cause, remedy = _cause_and_remedy(path.parent, error)
        much = "" if size is None else f" ({size_text(size)})"
        raise CrucibleError(
            f"{what} could not be saved to {path}{much}: {cause}. No half-written file was "
            f"left, and what was there before is unchanged. {remedy}, or choose another folder; save again."
        ) from error


def _cause_and_remedy(folder: Path, error: OSError) -> tuple[str, str]:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({_free_text(folder)})", "Free some space on that disk"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        cause = "writing there is not permitted, or another program has the file open"
        return cause, "Close programs that use the file, or allow writing to the folder"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "a file lies where a folder must be", "Move that file away"
    return error.strerror or str(error), "Check the disk and the folder"


def _free_text(folder: Path) -> str:
    try:
        return f"{size_text(shutil.disk_usage(folder).free)} free"
    except OSError:
        return "free space unknown"
