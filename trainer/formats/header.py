"""What a safetensors file says about itself before its tensors: read alone, checked, in little memory."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import CrucibleError
from ..messages.wording import size_text

MAX_HEADER = 100_000_000
"""Bytes; the safetensors library reads no longer one."""

MAX_QUICK = 2_000_000
"""Bytes of a header whose metadata is read without the rest; that of a large LoRA has a quarter of it."""

_METADATA = re.compile(rb'\{\s*"__metadata__"\s*:\s*')

_OTHER_KINDS = {
    b"PK\x03\x04": "a PyTorch pickle (.pt, .ckpt, .bin)",
    b"\x80": "a Python pickle (.pt, .ckpt, .bin)",
    b"GGUF": "a GGUF file",
    b"<": "a web page, as a download page or a login gives in place of a file",
    b"version https://git-lfs": "a pointer of Git LFS, not the file that it points to",
}
"""What files begin with that are found under this ending."""


@dataclass(frozen=True)
class LoraHeader:
    """
    Attributes:
        size: of the file, in bytes.
        metadata: empty if the file has none.
    """

    path: Path
    size: int
    metadata: dict[str, str]

    @cached_property
    def entries(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The type ("F16") and shape of each tensor by key, sorted. Read and checked when asked for: lists of many
        files need the metadata alone, which takes a fraction of the time.

        The safetensors library checks that the tensors fill the file from end to end, without gap or overlap, and that
        each has the bytes of its shape and type.

        Raises:
            CrucibleError: the header lies about the contents.
        """
        with _opened(self.path, self.size) as file:
            slices = {key: file.get_slice(key) for key in sorted(file.keys())}
            return {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in slices.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: shape for key, (_, shape) in self.entries.items()}


def read_header(path: Path) -> LoraHeader:
    """The header of a safetensors file; its `entries` are read when they are asked for.

    Raises:
        CrucibleError: no such file, none of this ending, of another kind, cut off, or its metadata is no text.
    """
    if path.suffix.lower() != ".safetensors":
        raise CrucibleError(
            f"{path} is not a .safetensors file. Other formats (.pt, .bin, .ckpt) can run code when they are "
            "opened, so they are not read. Choose the LoRA's .safetensors version."
        )
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
            raise OSError(0, "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is no ordinary file")
        with open(path, "rb") as file:
            length = _checked_length(path, file.read(32), status.st_size)
            file.seek(8)
            # Python's JSON takes many times the text's memory, so that long ones are left to the library.
            text = file.read(length) if length <= MAX_QUICK else b""
    except FileNotFoundError:
        raise CrucibleError(
            f"There is no file {path}, so no LoRA could be read. Check the name and the folder; names are "
            "case-sensitive on some systems."
        ) from None
    except OSError as error:
        raise unreadable(path, error) from error
    metadata = _metadata_at_start(path, text, status.st_size)
    if metadata is None:
        with _opened(path, status.st_size) as opened:
            metadata = dict(opened.metadata() or {})
    return LoraHeader(path, status.st_size, metadata)


def _metadata_at_start(path: Path, text: bytes, size: int) -> dict[str, str] | None:
    """The metadata of a header that begins with it, as nearly all do; None for another."""
    start = _METADATA.match(text)
    if start is None:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text[start.end() :].decode())
    except (ValueError, RecursionError) as error:
        raise not_whole(path, size, f"its metadata cannot be read ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise not_whole(path, size, "its metadata is not text by name")
    return found


@contextmanager
def _opened(path: Path, size: int) -> Iterator[Any]:
    """The file in the library's hands, which has then checked its header; the body is not read."""
    try:
        with safe_open(path, "np") as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from error
    except (SafetensorError, ValueError) as error:
        raise not_whole(path, size, str(error)) from error


def _checked_length(path: Path, first: bytes, size: int) -> int:
    """Of the header, from the first bytes of the file."""
    length = int.from_bytes(first[:8], "little")
    if first[8:9] == b"{" and 8 + length <= size and length <= MAX_HEADER:
        return length
    for beginning, kind in _OTHER_KINDS.items():
        if first.startswith(beginning):
            raise CrucibleError(
                f"{path} ({size_text(size)}) is not a safetensors file but {kind}, renamed. It was not opened: files "
                "of other kinds can hold anything, and pickles can run code. Download the LoRA's .safetensors version."
            )
    if size <= 8:
        raise not_whole(path, size, "it ends before its header")
    raise not_whole(path, size, f"its header claims {length:,} bytes")


def unreadable(path: Path, error: OSError) -> CrucibleError:
    return CrucibleError(
        f"{path} could not be read: {error.strerror or error}. Without it there is no LoRA to use. Check "
        "that it is a file and that you may read it."
    )


def not_whole(path: Path, size: int, problem: str) -> CrucibleError:
    return CrucibleError(
        f"{path} ({size_text(size)}) is not a whole safetensors file: {problem}. It was probably "
        "cut off while downloading or copying, or is another kind of file with this ending. Download or "
        "copy it again."
    )
