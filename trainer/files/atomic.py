"""Writing of files that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO

from ..errors import CrucibleError
from ..messages.wording import size_text
from .names import derived_name

TEMPORARY = ".crucible-"
"""The prefix of the names of files that are still being written; a killed process may leave such a file behind."""

RANDOM = "-????????.tmp"
"""The pattern of the ending of these names, in which each ? stands for a random character."""


def write_whole(path: Path, *parts: bytes | memoryview, what: str, check: Callable[[Path], None] | None = None) -> int:
    """Write the parts one after the other to one file, creating its folder, and return the file's size in bytes.

    The file appears under `path` complete or not at all; an existing file stays intact until then.

    Args:
        path: the file to write.
        parts: the content.
        what: a name for the content, the subject of the first sentence of an error.
        check: as for `whole_file`.

    Raises:
        CrucibleError: the disk is full, the folder may not be written to, or the system reports another error.
    """
    size = sum(map(len, parts))
    with whole_file(path, what=what, size=size, check=check) as file:
        for part in parts:
            file.write(part)
    return size


@contextmanager
def whole_file(path: Path, *, what: str, size: int, check: Callable[[Path], None] | None = None) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under `path` at the end, complete or not at all.

    Args:
        path: the file to write.
        what: a name for the content, the subject of the first sentence of an error.
        size: the size of the content in bytes, given in an error.
        check: a function that reads the finished file at its temporary path, and raises an error if it is not right;
            then nothing appears under `path`.

    Raises:
        CrucibleError: the disk is full, the folder may not be written to, or the system reports another error.
    """
    with explained(path, what, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The ending keeps the file out of lists of LoRAs. tempfile would create files that only their owner can read.
        temporary = path.with_name(derived_name(path.name, f"-{secrets.token_hex(4)}.tmp", TEMPORARY))
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if check is not None:
                check(temporary)
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def delete_unfinished(folder: Path, name: str | None = None) -> None:
    """Delete the unfinished files that killed processes left in a folder, of one name or of all.

    No process may be writing these files at the same time.
    """
    begun = f"{TEMPORARY}*" if name is None else escape(derived_name(name, RANDOM, TEMPORARY).removesuffix(RANDOM))
    for path in folder.glob(f"{begun}{RANDOM}"):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def require_writable(folder: Path, what: str) -> None:
    """Check that a folder can be written to by writing and deleting a file of one byte.

    Args:
        folder: the folder, which is created if it is missing.
        what: a name for the content to be saved there, the subject of the first sentence of an error.

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
            f"{what} could not be saved to {folder}: {cause}. Therefore nothing was started. {remedy}, or choose "
            "another folder, then start again.",
            "disk",
        ) from error


def sync_folder(folder: Path) -> None:
    """Make new file names in a folder survive a power cut, if the system supports it (Windows cannot open folders)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def explained(path: Path, what: str, size: int | None = None) -> Iterator[None]:
    """Turn the system's errors while writing `size` bytes to `path` into errors that say what to do.

    Raises:
        CrucibleError: the system reported an error.
    """
    try:
        yield
    except OSError as error:
        cause, remedy = _cause_and_remedy(path.parent, error)
        much = "" if size is None else f" ({size_text(size)})"
        raise CrucibleError(
            f"{what} could not be saved to {path}{much}: {cause}. No partial file was left behind, and a file "
            f"that was there before is unchanged. {remedy}, or choose another folder, then save again.",
            "disk",
        ) from error


def _cause_and_remedy(folder: Path, error: OSError) -> tuple[str, str]:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({_free_text(folder)})", "Free some space on that disk"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        cause = "writing there is not permitted, or another program has the file open"
        return cause, "Close programs that use the file, or allow writing to the folder"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "there is a file where a folder is needed", "Move that file away"
    return error.strerror or str(error), "Check the disk and the folder"


def _free_text(folder: Path) -> str:
    try:
        return f"{size_text(shutil.disk_usage(folder).free)} free"
    except OSError:
        return "free space unknown"
