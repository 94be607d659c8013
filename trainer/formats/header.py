"""What a safetensors file says about itself before its tensors: read alone, checked, in little memory."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import CrucibleError
from ..whole_files import size_text

MAX_HEADER = 100_000_000
"""Bytes; the safetensors library reads no longer one."""

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
        keys: of all tensors, sorted.
        metadata: empty if the file has none.
    """

    path: Path
    size: int
    keys: tuple[str, ...]
    metadata: dict[str, str]

    @cached_property
    def entries(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The type ("F16") and shape of each tensor. Takes about as long as all else of the header."""
        with safe_open(self.path, "np") as file:
            slices = {key: file.get_slice(key) for key in self.keys}
            return {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in slices.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: shape for key, (_, shape) in self.entries.items()}


def read_header(path: Path) -> LoraHeader:
    """The header of a safetensors file.

    It is the safetensors library that checks it: the tensors fill the file from end to end, without gap or overlap,
    each has the bytes of its shape and type, and the metadata is text.

    Raises:
        CrucibleError: no such file, none of this ending, cut off, damaged, lying about its contents, or of another
            kind.
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
            first = file.read(32)
        _check_start(path, first, status.st_size)
        with safe_open(path, "np") as opened:
            keys = tuple(sorted(opened.keys()))
            metadata = dict(opened.metadata() or {})
    except FileNotFoundError:
        raise CrucibleError(
            f"There is no file {path}, so no LoRA could be read. Check the name and the folder; names are "
            "case-sensitive on some systems."
        ) from None
    except OSError as error:
        raise unreadable(path, error) from error
    except (SafetensorError, ValueError) as error:
        raise not_whole(path, status.st_size, str(error)) from error
    return LoraHeader(path, status.st_size, keys, metadata)


def _check_start(path: Path, first: bytes, size: int) -> None:
    length = int.from_bytes(first[:8], "little")
    if len(first) > 8 and first[8:9] == b"{" and 8 + length <= size and length <= MAX_HEADER:
        return
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
