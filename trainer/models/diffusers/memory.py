"""The memory of a diffusers UNet that is trained."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from ...adapters.dropout import RowSeeds
from ..memory_controls import MemoryControls


class UNetMemory(MemoryControls):
    """The memory controls of a UNet that stays on its device as a whole.

    diffusers' group offloading, which moves layers to the host after use, does not work for training: it changes
    tensors that autograd has saved for backward.

    Args:
        unet: the UNet.
        rows: the seeds of the rows that it computes, which a recomputed block needs again.
    """

    def __init__(self, unet: Any, rows: RowSeeds) -> None:
        self._unet, self._rows = unet, rows

    def weights_size(self) -> tuple[int, int]:
        weights = self._unet.parameters()
        size = sum(weight.numel() * weight.element_size() for weight in weights if not weight.requires_grad)
        return size, size

    def set_checkpointing(self, on: bool) -> None:
        if on:
            self._unet.enable_gradient_checkpointing(self._checkpoint)
        else:
            self._unet.disable_gradient_checkpointing()

    def _checkpoint(self, block: nn.Module, *args: Any) -> Any:
        return checkpoint(block.__call__, *args, use_reentrant=False, context_fn=self._rows.checkpoint_contexts)
