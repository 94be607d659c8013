"""The memory of a diffusers denoiser that is trained."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from ...adapters.dropout import RowSeeds
from ..memory_controls import MemoryControls
from ..splitting import size_here, size_of


class DenoiserMemory(MemoryControls):
    """The memory controls of a denoiser that stays on its device as a whole.

    diffusers' group offloading, which moves layers to the host after use, does not work for training: it changes
    tensors that autograd has saved for backward.

    Args:
        denoiser: the UNet or transformer.
        rows: the seeds of the rows that it computes, which a recomputed block needs again.
    """

    def __init__(self, denoiser: Any, rows: RowSeeds) -> None:
        self._denoiser, self._rows = denoiser, rows

    def weights_size(self) -> tuple[int, int]:
        weights = [weight for weight in self._denoiser.parameters() if not weight.requires_grad]
        return size_of(weights), size_here(weights)

    def set_checkpointing(self, on: bool) -> None:
        if on:
            self._denoiser.enable_gradient_checkpointing(self._checkpoint)
        else:
            self._denoiser.disable_gradient_checkpointing()

    def _checkpoint(self, block: nn.Module, *args: Any) -> Any:
        return checkpoint(block.__call__, *args, use_reentrant=False, context_fn=self._rows.checkpoint_contexts)
