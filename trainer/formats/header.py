"""Read and check the headers of safetensors files without loading the tensors."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import ItemsView, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import CrucibleError
from ..messages.wording import size_text

ENDINGS = (".safetensors", ".sft")
"""The endings of safetensors files. Files with other endings in ComfyUI's lists can run code."""

MAX_HEADER = 100_000_000
"""The longest header, in bytes, that the safetensors library reads."""

MAX_QUICK = 2_000_000
"""The longest header, in bytes, whose metadata is parsed without the rest; a large LoRA's has a quarter of this."""

_METADATA = re.compile(rb'\{\s*"__metadata__"\s*:\s*')

_OTHER_KINDS = {
    b"PK\x03\x04": "a PyTorch pickle (.pt, .ckpt, .bin)",
    b"\x80": "a Python pickle (.pt, .ckpt, .bin)",
    b"GGUF": "a GGUF file",
    b"<": "a web page, such as a login or download page saved in place of the file",
    b"version https://git-lfs": "a Git LFS pointer without the file that it points to",
}
"""The first bytes of other kinds of files that are found with the endings of safetensors files."""


@dataclass(frozen=True)
class LoraHeader:
    """The header of a LoRA file.

    Attributes:
        path: the path of the file.
        size: the size of the file in bytes.
        metadata: the file's metadata; empty if it has none.
        start: the position in the header, in bytes, where the metadata ends; 0 if it does not begin with it.
    """

    path: Path
    size: int
    metadata: dict[str, str]
    start: int = 0

    @cached_property
    def entries(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The type ("F16") and shape of each tensor, sorted by key. Read and checked on first use: lists of many files
        only need the metadata, which takes a fraction of the time.

        The safetensors library checks that the tensors fill the file from end to end, without gaps or overlaps, and
        that each has as many bytes as its shape and type require.

        Raises:
            CrucibleError: the header does not match the contents.
        """
        with _opened(self.path, self.size) as file:
            slices = {key: file.get_slice(key) for key in sorted(file.keys())}
            return {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in slices.items()}

    @cached_property
    def shapes(self) -> FileShapes:
        """The shape of each tensor, by key."""
        return FileShapes(self)


class FileShapes(Mapping[str, tuple[int, ...]]):
    """The shape of each tensor of a file, by key; read and checked on first use, as `LoraHeader.entries`."""

    def __init__(self, header: LoraHeader) -> None:
        self._header = header

    @cached_property
    def digest(self) -> bytes:
        """A hash of the entries as they are written, and of the size of the data.

        Most LoRAs share it with others: those of one trainer, base model and rank. What is known about the shapes of
        one file then holds for the others, and they are as complete as the one.

        Raises:
            CrucibleError: the file cannot be read.
        """
        header = self._header
        try:
            with open(header.path, "rb") as file:
                length = int.from_bytes(file.read(8), "little")
                text = file.read(length)
        except OSError as error:
            raise unreadable(header.path, error) from error
        digest = hashlib.sha256((header.size - length).to_bytes(8, "little"))
        digest.update(memoryview(text.rstrip(b" "))[header.start :])  # spaces fill a header up
        return digest.digest()

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: shape for key, (_, shape) in self._header.entries.items()}

    def __getitem__(self, key: str) -> tuple[int, ...]:
        return self._shapes[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def items(self) -> ItemsView[str, tuple[int, ...]]:
        return self._shapes.items()


def without_ending(name: str) -> str:
    """Return the name of a safetensors file without its ending; any other name unchanged."""
    return next((name[: -len(ending)] for ending in ENDINGS if name.lower().endswith(ending)), name)


def read_header(path: Path) -> LoraHeader:
    """Read the header of a safetensors file; its `entries` are read on first use.

    Raises:
        CrucibleError: the file does not exist, has another ending than `ENDINGS`, is of another kind or incomplete, or
            its metadata is not text.
    """
    if path.suffix.lower() not in ENDINGS:
        raise CrucibleError(
            f"{path} is not a .safetensors file. Other formats (.pt, .bin, .ckpt) can run code when they are "
            "opened, so they are not read. Choose the LoRA's .safetensors version."
        )
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block forever
            raise OSError(0, "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is not a regular file")
        with open(path, "rb") as file:
            length = _checked_length(path, file.read(32), status.st_size)
            file.seek(8)
            # Python's JSON parser needs many times the text's memory, so long headers are left to the library.
            text = file.read(length) if length <= MAX_QUICK else b""
    except FileNotFoundError:
        raise CrucibleError(
            f"There is no file {path}, so no LoRA could be loaded. Check the name and the folder; names are "
            "case-sensitive on some systems."
        ) from None
    except OSError as error:
        raise unreadable(path, error) from error
    metadata, start = _metadata_at_start(path, text, status.st_size)
    if metadata is None:
        with _opened(path, status.st_size) as opened:
            metadata = dict(opened.metadata() or {})
    return LoraHeader(path, status.st_size, metadata, start)


def _metadata_at_start(path: Path, text: bytes, size: int) -> tuple[dict[str, str] | None, int]:
    """Return the metadata of a header that begins with it, as nearly all do, and where it ends, in bytes.

    Returns None and 0 if this one does not.
    """
    start = _METADATA.match(text)
    if start is None:
        return None, 0
    try:
        decoded = text[start.end() :].decode()
        found, end = json.JSONDecoder().raw_decode(decoded)
    except (ValueError, RecursionError) as error:
        raise not_whole(path, size, f"its metadata cannot be read ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise not_whole(path, size, "its metadata does not map names to text")
    return found, start.end() + len(decoded[:end].encode())


@contextmanager
def _opened(path: Path, size: int) -> Iterator[Any]:
    """Open a file with the safetensors library, which checks the header; the tensors are not read."""
    try:
        with safe_open(path, "np") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from error
    except (SafetensorError, ValueError) as error:
        raise not_whole(path, size, str(error)) from error


def _checked_length(path: Path, first: bytes, size: int) -> int:
    """Return the length of the header in bytes, from the first bytes of the file.

    Raises:
        CrucibleError: the file is of another kind, or not long enough for its header.
    """
    length = int.from_bytes(first[:8], "little")
    if first[8:9] == b"{" and 8 + length <= size and length <= MAX_HEADER:
        return length
    for beginning, kind in _OTHER_KINDS.items():
        if first.startswith(beginning):
            raise CrucibleError(
                f"{path} ({size_text(size)}) is not a safetensors file but {kind}, under the wrong name. It was not "
                "opened: other kinds of files can contain anything, and pickles can run code. Download the LoRA's "
                ".safetensors version."
            )
    if size <= 8:
        raise not_whole(path, size, "it ends before its header")
    raise not_whole(path, size, f"its header claims {length:,} bytes")


def unreadable(path: Path, error: OSError) -> CrucibleError:
    """Return the error for a file that the system cannot read."""
    return CrucibleError(
        f"{path} could not be read: {error.strerror or error}. Without it there is no LoRA to use. Check "
        "that it is a file and that you have permission to read it."
    )


def not_whole(path: Path, size: int, problem: str) -> CrucibleError:
    """Return the error for a file that is not a complete safetensors file."""
    return CrucibleError(
        f"{path} ({size_text(size)}) is not a complete safetensors file: {problem}. Its download or copy was "
        "probably interrupted, or it is another kind of file with this extension. Download or copy it again."
    )
