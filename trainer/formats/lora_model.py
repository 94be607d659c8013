"""LoRAs in memory, as ComfyUI's LORA_MODEL sockets carry them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from .lora_file import read_lora


class LoraModel(dict[str, Tensor]):
    """A LoRA's state dict, which is all that ComfyUI's own nodes need, with the LoRA's name and metadata."""

    def __init__(
        self, tensors: Mapping[str, Tensor], name: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(tensors)
        self.name = name
        self.metadata = dict(metadata or {})


def load_lora(path: Path, name: str) -> LoraModel:
    """Load a LoRA from its file.

    The last few LoRAs are kept in memory, because workflows are run again and again; a file that has changed is read
    again. Callers must not modify the tensors.

    Raises:
        CrucibleError: as `read_lora`.
    """
    try:
        status = path.stat()
    except OSError:
        return LoraModel(*_named(path, name))  # raises an error that says what is wrong with the file
    return _load(path, name, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _load(path: Path, name: str, modified: int, size: int) -> LoraModel:
    return LoraModel(*_named(path, name))


def _named(path: Path, name: str) -> tuple[dict[str, Tensor], str, dict[str, str]]:
    tensors, metadata = read_lora(path)
    return tensors, name, metadata
