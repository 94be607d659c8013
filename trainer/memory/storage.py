"""Whether disk and host have room for what a run keeps there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ..config import ResolvedConfig
from ..data.cache import IN_MEMORY
from ..errors import CrucibleError
from ..hardware.device_memory import free_host_memory
from ..messages.wording import size_text
from .plan import STATE_BYTES

FILE_BYTES = {"fp16": 2, "fp32": 4}

STATES_IN_MEMORY = 3
"""Copies of the trained state: one to go back to, one that is being written, one that is being made."""


@dataclass(frozen=True)
class Room:
    """
    Attributes:
        line: what is needed and free, for the report.
        warnings: sentences about what will not do for all of it.
    """

    line: str
    warnings: tuple[str, ...]


def require_room(folder: Path, trained: int, config: ResolvedConfig) -> Room:
    """
    Args:
        folder: of the run.
        trained: how many numbers are trained.

    Raises:
        CrucibleError: the disk has no room for the LoRA and one checkpoint.
    """
    lora = trained * FILE_BYTES[config.save_precision]
    # The weights as they are and as they were best, the average, the optimizer.
    state = int(trained * (4 + 4 + (4 if config.ema_decay else 0) + STATE_BYTES[config.optimizer]))
    checkpoint = state + 2 * lora
    # The newest is whole before the oldest goes; the LoRA may be there as it was best and as it was last.
    on_disk = 2 * lora + checkpoint * (max(config.checkpoints_kept, 1) + 1)
    in_memory = STATES_IN_MEMORY * state + IN_MEMORY
    disk, memory = shutil.disk_usage(folder).free, free_host_memory()
    least = 2 * lora + checkpoint
    if disk < least:
        raise CrucibleError(
            f"The disk of {folder} has {size_text(disk)} free, and the LoRA with one checkpoint takes "
            f"{size_text(least)}, so what is trained could not be saved. Free some space there, or choose another "
            "output folder."
        )
    warnings = []
    if disk < on_disk:
        warnings.append(
            f"The disk of {folder} has {size_text(disk)} free, and the LoRA and its checkpoints take up to "
            f"{size_text(on_disk)}: not all checkpoints will be written. Free some space there, or lower "
            "checkpoints_kept."
        )
    if memory < in_memory:
        warnings.append(
            f"The computer's own memory has {size_text(memory)} free, and encoded images and states of the run take "
            f"up to {size_text(in_memory)} there: it will be slow, or fail. Close other programs."
        )
    line = (
        f"Room for the LoRA and its checkpoints: {size_text(on_disk)} of {size_text(disk)} free on disk; for the cache "
        f"and states: {size_text(in_memory)} of {size_text(memory)} free in the computer's own memory"
    )
    return Room(line, tuple(warnings))
