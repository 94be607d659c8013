"""Safetensors files as parts that are written one after the other.

The library's `save` first joins them in memory and holds Python's GIL meanwhile: for a large file, that stalls a
training run in another thread for seconds. It also writes metadata in random order (safetensors issue 584).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..files.text import portable

_NAMES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The names of the dtypes in safetensors headers (github.com/huggingface/safetensors, "Format")."""

BYTES = {name: dtype.itemsize for dtype, name in _NAMES.items()}
"""The number of bytes of one element, by the dtype's name in the header."""


def data_parts(tensors: Mapping[str, Tensor]) -> dict[str, memoryview]:
    """Return the bytes of each tensor, in the order of a file: larger elements first, which keeps all of them aligned,
    then by name. Tensors on the CPU are not copied."""
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    return {name: data_of(tensors[name]) for name in names}


def data_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor."""
    return tensor.detach().to("cpu").reshape(-1).view(torch.uint8).numpy().data


def hash_of(data: Mapping[str, memoryview]) -> str:
    """Return the SHA-256 of `data_parts`, as sshs_model_hash and modelspec.hash_sha256 contain it."""
    digest = hashlib.sha256()
    for part in data.values():
        digest.update(part)
    return digest.hexdigest()


def file_parts(
    tensors: Mapping[str, Tensor], data: Mapping[str, memoryview], metadata: Mapping[str, str] | None = None
) -> list[bytes | memoryview]:
    """Return the parts of a whole file. The same tensors and metadata give the same bytes.

    Args:
        tensors: the tensors by name.
        data: the `data_parts` of the tensors.
        metadata: the file's metadata; None for a file without any.
    """
    entries = {name: (_NAMES[tensors[name].dtype], tensors[name].shape, len(part)) for name, part in data.items()}
    return [header(entries, metadata), *data.values()]


def header(entries: Mapping[str, tuple[str, Sequence[int], int]], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes that a file begins with: the length of the header, and the header itself.

    Args:
        entries: the type ("F16"), shape and number of bytes of each tensor, in the order of their data.
        metadata: the file's metadata; None for a file without any.
    """
    described: dict[str, Any] = {}
    begin = 0
    for name, (dtype, shape, size) in entries.items():
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, begin + size]}
        begin += size
    described = dict(sorted(described.items()))
    if metadata is not None:
        readable = {portable(key): portable(value) for key, value in sorted(metadata.items())}
        described = {"__metadata__": readable, **described}
    text = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
