"""A LoRA in memory, as ComfyUI's LORA_MODEL sockets carry it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class LoraModel(dict[str, Tensor]):
    """A LoRA's state dict, which is all that ComfyUI's own nodes want, that also knows its name and metadata."""

    def __init__(
        self, tensors: Mapping[str, Tensor], name: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(tensors)
        self.name = name
        self.metadata = dict(metadata or {})
