"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import CrucibleError

TEMPORARY = ".crucible-"
"""How the name of a file begins that is being written; a killed process may leave one."""


def write_whole(path: Path, *parts: bytes | memoryview, what: str) -> int:
    """Write the parts one after the other as one file, creating its folder; returns its size in bytes.

    The file appears under `path` complete or not at all; one that is already there stays whole until then.

    Args:
        what: is written, as the subject of an error's first sentence.

    Raises:
        CrucibleError: the disk is full, the folder may not be written to, or the system fails otherwise.
    """
    size = sum(map(len, parts))
    with _explained(path, size, what):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another ending, so that no list of LoRAs shows it; not tempfile, whose files only their owner reads.
        temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}.tmp")
        try:
            with open(temporary, "xb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return size


def sync_folder(folder: Path) -> None:
    """Make new names in it survive a power cut, where the system can (Windows cannot open folders)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def size_text(size: int) -> str:
    """A file size in bytes as people read it (1 MB = 1,000,000 bytes)."""
    if size < 1000:
        return f"{size} bytes"
    for unit, factor in (("KB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        value = size / factor
        if value < 999.95 or unit == "GB":
            break
    return f"{value:.1f} {unit}"


@contextmanager
def _explained(path: Path, size: int, what: str) -> Iterator[None]:
    """Turn the system's errors while writing `size` bytes to `path` into ones that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cause, remedy = f"the disk is full ({_free_text(path)})", "Free some space on that disk"
        elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
            cause = "writing there is not permitted, or another program has the file open"
            remedy = "Close programs that use the file, or allow writing to the folder"
        else:
            cause, remedy = error.strerror or str(error), "Check the disk and the folder"
        raise CrucibleError(
            f"{what} could not be saved to {path} ({size_text(size)}): {cause}. No half-written file was "
            f"left, and what was there before is unchanged. {remedy}, or choose another folder; save again."
        ) from error


def _free_text(path: Path) -> str:
    try:
        return f"{size_text(shutil.disk_usage(path.parent).free)} free"
    except OSError:
        return "free space unknown"
