"""How a step is cut to fit into memory, and in which order it is cut smaller."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from ..models.examples import CachedExample
from ..models.memory_controls import MemoryControls

STATE_BYTES = {
    "adamw": 8.0,  # two moments in float32
    "adamw_8bit": 2.0,
    "adafactor": 0.1,  # rows and columns alone
    "lion": 4.0,
    "prodigy": 16.0,  # two moments, the sum of its estimate, and the weights at the start
    "schedule_free_adamw": 8.0,
}
"""What an optimizer keeps for each trained number."""


@dataclass(frozen=True)
class MemoryPlan:
    """
    Attributes:
        micro_batch: rows that are computed at a time, at most.
        checkpointing: whether blocks are computed again for backward rather than kept.
        offloaded: how often more of the base model was left to the host's memory.
    """

    micro_batch: int
    checkpointing: bool = False
    offloaded: int = 0

    def micro_batches(self, batches: Sequence[Sequence[int]]) -> list[list[int]]:
        """The same rows in the same order."""
        size = self.micro_batch
        return [list(batch[first : first + size]) for batch in batches for first in range(0, len(batch), size)]

    def __str__(self) -> str:
        offloaded = f", {self.offloaded} times more of the base model offloaded" if self.offloaded else ""
        return f"{self.micro_batch} at a time, gradient checkpointing {_on(self.checkpointing)}{offloaded}"


def smaller(plan: MemoryPlan, controls: MemoryControls) -> tuple[MemoryPlan, str] | None:
    """Return the next plan, which needs less memory, and what changes, in words; None when nothing is left to change.

    The base model is adjusted to the plan through its controls.

    What costs the least time comes first: the micro-batch is halved down to one row, then gradient checkpointing is
    turned on, then more and more of the base model is moved to the host's memory.
    """
    if plan.micro_batch > 1:
        rows = -(-plan.micro_batch // 2)
        return replace(plan, micro_batch=rows), f"micro-batches of {rows} rather than {plan.micro_batch}"
    if not plan.checkpointing:
        controls.set_checkpointing(True)
        return replace(plan, checkpointing=True), "gradient checkpointing"
    if controls.offload_more():
        return replace(plan, offloaded=plan.offloaded + 1), "more of the base model in the computer's own memory"
    return None


def largest_batch(samples: Sequence[CachedExample], batch_size: int) -> list[CachedExample]:
    """Of all batches that can occur, the one that needs most memory."""
    groups: dict[Hashable, list[CachedExample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    batches = [members[:batch_size] for members in groups.values()]
    return max(batches, key=lambda batch: sum(sample.size for sample in batch))


def largest_number_of_rows(samples: Sequence[CachedExample], batch_size: int) -> int:
    """In any batch."""
    groups: dict[Hashable, int] = {}
    for sample in samples:
        groups[sample.group] = groups.get(sample.group, 0) + 1
    return min(batch_size, max(groups.values()))


def _on(switch: bool) -> str:
    return "on" if switch else "off"
