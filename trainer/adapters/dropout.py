"""Dropout on the inputs of adapters, seeded by row.

Like noise, a dropout mask depends on the seed of its row and on nothing else: not on how a step is cut into
micro-batches, not on the other rows, and not on whether a block is computed a second time for gradient checkpointing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ..seeding import derived_seed


class RowSeeds:
    """The seeds of the rows that a model is computing, shared by all dropout layers on it."""

    def __init__(self) -> None:
        self.seeds: tuple[int, ...] = ()

    @contextmanager
    def used(self, seeds: Sequence[int]) -> Iterator[None]:
        """Seed dropout with these seeds, one per row, inside the context."""
        before, self.seeds = self.seeds, tuple(seeds)
        try:
            yield
        finally:
            self.seeds = before

    def checkpoint_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the contexts of a block's forward and of its recomputation, as `torch.utils.checkpoint` asks for
        them: backward recomputes a block after the context of its forward has closed."""
        return nullcontext(), self.used(self.seeds)


class RowDropout(nn.Module):
    """Dropout whose mask for each row depends only on the row's seed and the layer's key.

    Args:
        probability: the probability that an entry of the input is dropped, above 0 and below 1.
        key: the layer's key in a LoRA file.
        rows: the seeds of the rows in the input.
    """

    def __init__(self, probability: float, key: str, rows: RowSeeds) -> None:
        super().__init__()
        self._probability, self._key, self._rows = probability, key, rows

    def forward(self, x: Tensor) -> Tensor:
        """Drop entries of `x`, which is (rows, ...); (rows * parts, ...) with the parts of a row side by side; or
        (1, rows * tokens, ...), as PixArt packs its captions.

        An input that all rows share gets one mask, seeded by the first row.
        """
        if not self.training:
            return x
        seeds = self._rows.seeds
        rows, dimension = len(seeds), 0
        if x.shape[0] % rows:
            if x.shape[0] == 1 and x.ndim > 2 and x.shape[1] % rows == 0:
                dimension = 1
            else:
                seeds, rows = seeds[:1], 1
        mask = torch.empty(x.shape, device=x.device)
        for seed, part in zip(seeds, mask.chunk(rows, dimension), strict=True):
            draw = torch.Generator(x.device).manual_seed(derived_seed(seed, "dropout", self._key))
            part.uniform_(generator=draw)
        # In place, because on a CPU the mask takes as long as the adapter itself.
        return x * mask.ge_(self._probability).to(x.dtype).div_(1 - self._probability)
