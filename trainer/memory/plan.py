"""Memory plans: how a step is split to fit into memory, and which smaller plan comes next."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from ..models.examples import CachedExample
from ..models.memory_controls import MemoryControls

STATE_BYTES = {
    "adamw": 8.0,  # two moments in float32
    "adamw_8bit": 2.0,
    "adafactor": 0.1,  # one value per row and column only
    "lion": 4.0,
    "prodigy": 16.0,  # two moments, the sum for its estimate, and the initial weights
    "schedule_free_adamw": 8.0,
}
"""The bytes of state that an optimizer keeps per trained parameter."""


@dataclass(frozen=True)
class MemoryPlan:
    """A way of computing a step that needs a certain amount of memory.

    Attributes:
        micro_batch: the most rows that are computed at a time.
        checkpointing: whether gradient checkpointing is on, so that blocks are computed again in the backward pass.
        offloaded: the number of times that another part of the base model was moved to main memory (RAM).
    """

    micro_batch: int
    checkpointing: bool = False
    offloaded: int = 0

    def micro_batches(self, batches: Sequence[Sequence[int]]) -> list[list[int]]:
        """Split batches into micro-batches, with the same rows in the same order."""
        size = self.micro_batch
        return [list(batch[first : first + size]) for batch in batches for first in range(0, len(batch), size)]

    def __str__(self) -> str:
        offloaded = f", {self.offloaded} times more of the base model offloaded" if self.offloaded else ""
        return f"{self.micro_batch} at a time, gradient checkpointing {_on(self.checkpointing)}{offloaded}"


def smaller(plan: MemoryPlan, controls: MemoryControls) -> tuple[MemoryPlan, str] | None:
    """Return the next smaller plan to try after an out-of-memory error (OOM), and adjust the base model to it.

    The changes that cost the least time come first: the micro-batch is halved down to one row, then gradient
    checkpointing is turned on, then more and more of the base model is moved to main memory (RAM).

    Args:
        plan: the current plan.
        controls: the memory controls of the base model.

    Returns:
        The plan and a description of the change; None if nothing is left to change.
    """
    if plan.micro_batch > 1:
        rows = -(-plan.micro_batch // 2)
        return replace(plan, micro_batch=rows), f"micro-batches of {rows} instead of {plan.micro_batch}"
    if not plan.checkpointing:
        controls.set_checkpointing(True)
        return replace(plan, checkpointing=True), "gradient checkpointing"
    if controls.offload_more():
        return replace(plan, offloaded=plan.offloaded + 1), "more of the base model in main memory (RAM)"
    return None


def largest_batch(samples: Sequence[CachedExample], batch_size: int) -> list[CachedExample]:
    """Return the batch that needs the most memory of all that can occur."""
    groups: dict[Hashable, list[CachedExample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    batches = [members[:batch_size] for members in groups.values()]
    return max(batches, key=lambda batch: sum(sample.size for sample in batch))


def largest_number_of_rows(samples: Sequence[CachedExample], batch_size: int) -> int:
    """Return the most rows that a batch can have."""
    groups: dict[Hashable, int] = {}
    for sample in samples:
        groups[sample.group] = groups.get(sample.group, 0) + 1
    return min(batch_size, max(groups.values()))


def _on(switch: bool) -> str:
    return "on" if switch else "off"
