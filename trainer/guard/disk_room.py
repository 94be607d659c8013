"""Whether the disk has room for what a run will write."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..config import ResolvedConfig
from ..errors import CrucibleError
from ..whole_files import size_text
from .memory_plan import STATE_BYTES

FILE_BYTES = {"fp16": 2, "fp32": 4}


def require_disk(folder: Path, trained: int, config: ResolvedConfig) -> tuple[str, str]:
    """
    Args:
        folder: of the run.
        trained: how many numbers are trained.

    Returns:
        what is needed and free, for the report, and a warning where that does not suffice for all checkpoints.

    Raises:
        CrucibleError: there is no room for the LoRA and one checkpoint.
    """
    lora = trained * FILE_BYTES[config.save_precision]
    # The weights as they are and as they were best, the average, the optimizer; and the LoRA, perhaps twice.
    numbers = 4 + 4 + (4 if config.ema_decay else 0) + STATE_BYTES[config.optimizer]
    checkpoint = int(trained * numbers) + 2 * lora
    # The newest is whole before the oldest goes.
    needed = 2 * lora + checkpoint * (max(config.checkpoints_kept, 1) + 1)
    free = shutil.disk_usage(folder).free
    if free < 2 * lora + checkpoint:
        raise CrucibleError(
            f"The disk of {folder} has {size_text(free)} free, and the LoRA with one checkpoint takes "
            f"{size_text(2 * lora + checkpoint)}, so what is trained could not be saved. Free some space there, or "
            "choose another output folder."
        )
    text = f"Disk: {size_text(needed)} for the LoRA and its checkpoints, {size_text(free)} free"
    if free >= needed:
        return text, ""
    return text, (
        f"The disk of {folder} has {size_text(free)} free, and the LoRA and its checkpoints take up to "
        f"{size_text(needed)}: not all checkpoints will be written. Free some space there, or lower checkpoints_kept."
    )
