"""LoRAs in memory, as ComfyUI's LORA_MODEL sockets carry them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from threading import Lock

from torch import Tensor

from .lora_file import MAPPED, read_lora
from .peft_scale import config_paths, scale_in_metadata, with_alphas


class LoraModel(dict[str, Tensor]):
    """A LoRA's state dict, which is all that ComfyUI's own nodes need, with the LoRA's name and metadata.

    A strength that the metadata has for tensors without alphas becomes alphas among them.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], name: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.metadata = dict(metadata or {})
        scale = scale_in_metadata({key: tensor.shape for key, tensor in tensors.items()}, self.metadata)
        super().__init__(tensors if scale is None else with_alphas(tensors, scale.scales))


KEPT_BYTES = 8_000_000_000 if MAPPED else 2_000_000_000
"""The size of the files, in bytes, whose LoRAs are kept. Mapped ones only take memory that the system can reclaim."""


class _Kept:
    """The LoRAs that were used last, up to `KEPT_BYTES`."""

    def __init__(self) -> None:
        self._loras: OrderedDict[tuple[Path, str], tuple[tuple[int, ...], LoraModel]] = OrderedDict()
        self._lock = Lock()

    def get(self, path: Path, name: str, state: tuple[int, ...]) -> LoraModel | None:
        """Return a LoRA if it is kept and its file has not changed."""
        with self._lock:
            kept, lora = self._loras.pop((path, name), (None, None))
            if lora is None or kept != state:
                return None
            self._loras[path, name] = state, lora
            return lora

    def put(self, path: Path, name: str, state: tuple[int, ...], lora: LoraModel) -> None:
        """Keep a LoRA, and let go of those that were not used for longest; `state` begins with its size in bytes."""
        with self._lock:
            self._loras[path, name] = state, lora
            while sum(kept[0] for kept, _ in self._loras.values()) > KEPT_BYTES:
                self._loras.popitem(last=False)


_kept = _Kept()


def load_lora(path: Path, name: str) -> LoraModel:
    """Load a LoRA from its file.

    LoRAs are kept, because workflows are run again and again; one whose file has changed is read again. Callers must
    not modify the tensors.

    Raises:
        CrucibleError: as `read_lora`.
    """
    try:
        status = [file.stat() for file in (path, *config_paths(path))]
    except OSError:
        status = []  # reading raises an error that says what is wrong with the file
    state = tuple(number for one in status for number in (one.st_size, one.st_mtime_ns, one.st_ino))
    if state and (lora := _kept.get(path, name, state)) is not None:
        return lora
    tensors, metadata = read_lora(path)
    lora = LoraModel(tensors, name, metadata)
    if state:
        _kept.put(path, name, state, lora)
    return lora
