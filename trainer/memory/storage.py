"""Checks that the disk and main memory (RAM) have room for what a run stores there."""

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
"""The bytes per parameter in a LoRA file, by `save_precision`."""

STATES_IN_MEMORY = 3
"""The number of copies of the trained state: one to go back to, one being written, and one being made."""


@dataclass(frozen=True)
class Room:
    """The room that a run needs on disk and in main memory.

    Attributes:
        line: the report line about what is needed and what is free.
        warnings: sentences about room that may not be enough.
    """

    line: str
    warnings: tuple[str, ...]


def require_room(folder: Path, trained: int, config: ResolvedConfig) -> Room:
    """Check that there is room for what a run stores.

    Args:
        folder: the folder of the run; it need not exist.
        trained: the number of trained parameters.
        config: the settings of the run.

    Raises:
        CrucibleError: the disk has no room for the LoRA and one checkpoint.
    """
    lora = trained * FILE_BYTES[config.save_precision]
    # The current and the best weights, the moving average, and the optimizer.
    state = int(trained * (4 + 4 + (4 if config.ema_decay else 0) + STATE_BYTES[config.optimizer]))
    checkpoint = state + 2 * lora
    # The newest checkpoint is complete before the oldest is deleted; the best and the last LoRA may both be kept.
    on_disk = 2 * lora + checkpoint * (max(config.checkpoints_kept, 1) + 1)
    in_memory = STATES_IN_MEMORY * state + IN_MEMORY
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    disk, memory = shutil.disk_usage(existing).free, free_host_memory()
    least = 2 * lora + checkpoint
    if disk < least:
        raise CrucibleError(
            f"The disk of {folder} has {size_text(disk)} free, and the LoRA with one checkpoint takes "
            f"{size_text(least)}, so the result of the training could not be saved. Free some space on that disk, or "
            "choose another output folder.",
            "disk",
        )
    warnings = []
    if disk < on_disk:
        warnings.append(
            f"The disk of {folder} has {size_text(disk)} free, and the LoRA and its checkpoints take up to "
            f"{size_text(on_disk)}: not all checkpoints can be written. Free some space on that disk, or lower "
            "checkpoints_kept."
        )
    if memory < in_memory:
        warnings.append(
            f"Main memory (RAM) has {size_text(memory)} free, and encoded examples and checkpoints take up to "
            f"{size_text(in_memory)} there: the training may become slow or fail. Close other programs."
        )
    line = (
        f"Space needed for the LoRA and its checkpoints: {size_text(on_disk)} of {size_text(disk)} free on disk; for "
        f"cached inputs and states: {size_text(in_memory)} of {size_text(memory)} free in main memory (RAM)"
    )
    return Room(line, tuple(warnings))
