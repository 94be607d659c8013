"""Safetensors files as parts to be written one after the other.

The library's `save` joins them in memory first, and holds Python's lock meanwhile: seconds for a large file, in which a
run in another thread takes no step. It also writes metadata in random order (safetensors issue 584).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

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
"""As the format has them (github.com/huggingface/safetensors, "Format")."""


def data_parts(tensors: Mapping[str, Tensor]) -> dict[str, memoryview]:
    """The bytes of each tensor, in the order in which a file has them: large elements first, which keeps all aligned,
    then by name. The tensors are on the CPU and contiguous; their memory is not copied."""
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    return {name: tensors[name].detach().reshape(-1).view(torch.uint8).numpy().data for name in names}


def file_parts(
    tensors: Mapping[str, Tensor], data: Mapping[str, memoryview], metadata: Mapping[str, str] | None = None
) -> list[bytes | memoryview]:
    """A whole file. Same tensors and metadata give the same bytes.

    Args:
        data: `data_parts` of the tensors.
    """
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(sorted(metadata.items()))}
    begin, places = 0, {}
    for name, part in data.items():
        places[name] = [begin, begin + len(part)]
        begin += len(part)
    for name in sorted(tensors):
        tensor = tensors[name]
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": places[name]}
    # "replace": half a surrogate pair, as in a folder name that is no UTF-8, would make the file unreadable.
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    header += b" " * (-len(header) % 8)
    return [len(header).to_bytes(8, "little"), header, *data.values()]
