"""The controls that make a base model need less memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch

from ..distributed.processes import OutOfMemoryTogether, current
from ..hardware.device_memory import available_memory, free_host_memory
from ..hardware.out_of_memory import Attempt, Outcome, first_that_fits, free_memory, is_out_of_memory, twice

Result = TypeVar("Result")


class MemoryControls:
    """The controls with which a run adjusts the memory use of a base model.

    This class is for models that stay on their device as a whole and do not support gradient checkpointing.
    """

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Return whether an error is an out-of-memory error (OOM) of the device or the host."""
        return is_out_of_memory(error)

    def available(self, device: torch.device) -> int:
        """Return the bytes of the device that adapters and steps can use, including those already in use."""
        if device.type == "cuda":
            return available_memory(device)
        # The processes of a machine share its memory.
        used = available_memory(device) - free_host_memory()
        return used + free_host_memory() // current().on_this_machine

    def free(self) -> None:
        """Release all memory that can be allocated again when it is needed."""
        free_memory()

    def first_that_fits(self, attempts: Iterable[Attempt[Result]]) -> Outcome[Result]:
        """Make attempts until one does not run out of memory (OOM)."""
        return first_that_fits(attempts, self.is_out_of_memory, self.free)

    def first_that_fits_together(self, attempts: Iterable[Attempt[Result]]) -> Outcome[Result]:
        """Make attempts until one does not run out of memory (OOM) in any process of the run.

        Each attempt must end with an exchange between the processes that tells all of them when one ran out of memory.
        """

        def is_oom(error: BaseException) -> bool:
            # A process that tried again alone would take part in other exchanges than the rest.
            return self.is_out_of_memory(error) if current().count == 1 else isinstance(error, OutOfMemoryTogether)

        return first_that_fits(attempts, is_oom, self.free)

    def do_together(self, action: Callable[[], Result]) -> Result:
        """Do something in every process of the run, and once more after freeing memory if any ran out of it (OOM).

        Raises:
            Exception: the action failed in some process, or ran out of memory twice.
        """

        def attempt() -> Result:
            results: list[Result] = []
            current().together(lambda: results.append(action()), self.is_out_of_memory)
            return results[0]

        return self.first_that_fits_together(twice(attempt)).required()

    def weights_size(self) -> tuple[int, int]:
        """Return the size of the model without adapters in bytes: the total, and the part that is on the device."""
        return 0, 0

    def set_checkpointing(self, on: bool) -> None:
        """Turn gradient checkpointing on or off while adapters are attached. The gradients do not change."""

    def make_room(self, room: int | None, limit: int | None) -> None:
        """Set how much of the model is loaded from now on; models that cannot be partly offloaded ignore this.

        Args:
            room: the bytes of the device to keep free for a training step; None while that is unknown.
            limit: the most bytes that a step and the weights may use together; None for no limit.
        """

    def offload_more(self) -> bool:
        """Keep more of the model in main memory (RAM) from the next losses on.

        Returns:
            False if no more can be offloaded, or this kind of base model cannot do it.
        """
        return False
