"""The memory of a language model that is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...adapters.dropout import RowSeeds
from ..memory_controls import MemoryControls
from ..splitting import size_here, size_of


class LanguageMemory(MemoryControls):
    """The memory controls of a model of transformers that stays where it was loaded.

    Args:
        rows: the seeds of the rows that it computes, which a recomputed block needs again.

    Attributes:
        model: the loaded model; None before.
    """

    def __init__(self, rows: RowSeeds) -> None:
        self.model: nn.Module | None = None
        self._rows = rows
        self._forwards: list[tuple[nn.Module, Any]] = []

    def weights_size(self) -> tuple[int, int]:
        if self.model is None:
            return 0, 0
        weights = [weight for weight in self.model.parameters() if not weight.requires_grad]
        return size_of(weights), size_here(weight for weight in weights if weight.device.type != "meta")

    def set_checkpointing(self, on: bool) -> None:
        for block, forward in self._forwards:
            del block.forward
            if forward is not None:
                block.forward = forward
        self._forwards = []
        if on and self.model is not None:
            for block in blocks(self.model):
                # accelerate, which spreads a model over devices, sets the forward of modules in the same way.
                self._forwards.append((block, block.__dict__.get("forward")))
                block.forward = self._checkpointing(block.forward)

    def _checkpointing(self, forward: Any) -> Any:
        def checkpointed(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            contexts = self._rows.checkpoint_contexts
            # The frozen model draws no random numbers of its own, and dropout of adapters is seeded by row.
            return checkpoint(
                forward, *args, use_reentrant=False, context_fn=contexts, preserve_rng_state=False, **kwargs
            )

        return checkpointed


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of a model, which follow one another: the items of its largest list of modules."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=_size, default=[])


def _size(modules: list[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
