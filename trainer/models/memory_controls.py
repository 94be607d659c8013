"""The ways in which a base model can be made to need less memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch

from ..hardware.device_memory import available_memory
from ..hardware.out_of_memory import Attempt, Outcome, first_that_fits, free_memory, is_out_of_memory

Result = TypeVar("Result")


class MemoryControls:
    """A base model's memory, as the plan of a run adjusts it. These controls are those of a model that stays on its
    device as a whole and has no blocks to recompute."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return whether an error says that the device or the host ran out of memory."""
        return is_out_of_memory(error)

    def available(self, device: torch.device) -> int:
        """Return how many bytes of the device adapters and training steps can use, including what they already use."""
        return available_memory(device)

    def free(self) -> None:
        """Release all memory that can be allocated again when it is needed."""
        free_memory()

    def first_that_fits(self, attempts: Iterable[Attempt[Result]]) -> Outcome[Result]:
        """Make attempts at something until one does not run out of memory."""
        return first_that_fits(attempts, self.is_out_of_memory, self.free)

    def weights_size(self) -> tuple[int, int]:
        """Return the bytes of the model that is trained, without adapters: in all, and of these on the device."""
        return 0, 0

    def set_checkpointing(self, on: bool) -> None:
        """Switch gradient checkpointing while adapters are attached. The gradients stay the same."""

    def make_room(self, room: int | None, limit: int | None) -> None:
        """Say how the model is to be loaded from now on; only models that can be offloaded in part use it.

        Args:
            room: the bytes of the device that stay free for a training step; None while that is unknown.
            limit: the most bytes that room and weights may take together; None sets no limit.
        """

    def offload_more(self) -> bool:
        """Keep more of the model in the host's memory, from the next losses on.

        Returns:
            False if no more can be offloaded, or this kind of base model cannot do it.
        """
        return False
