"""The settings of checkpoints, resuming and memory."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, field_validator

from .setting import setting


class RunSettings(BaseModel):
    """The settings of checkpoints, memory and the LoRA to start from, part of every `TrainingConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    save_steps: int | None = setting(
        None,
        "Checkpoint every",
        "Steps between two checkpoints, from which a run resumes after a crash or Cancel. auto saves about one a "
        "minute; one is always saved on Cancel and at the end.",
        group="memory",
        step=1,
        aliases=("save_every_n_steps", "checkpointing_steps"),
        ge=1,
        le=1_000_000,
    )
    checkpoints_kept: int = setting(
        2,
        "Checkpoints kept",
        "How many of a run's latest checkpoints to keep. A finished run keeps only the last one, so that it can be "
        "trained for more steps; with 0 it keeps none.",
        group="memory",
        step=1,
        aliases=("save_total_limit", "checkpoints_total_limit"),
        ge=0,
        le=1000,
    )
    resume_from_checkpoint: str | None = setting(
        None,
        "Resume from checkpoint",
        "Folder of a checkpoint to resume from. If empty, the latest checkpoint of the same run is used.",
        group="run",
        path="path",
    )
    memory: str = setting(
        "auto",
        "Memory",
        "auto uses the memory that is free and adapts when it runs out: fewer images at a time, gradient "
        "checkpointing, more of the model in system RAM. A number of GB, such as 8 GB, sets a limit. fixed changes "
        "nothing, and stops with an error if the training does not fit.",
        group="memory",
    )
    allow_lower_resolution: bool = setting(
        False,
        "Allow lower resolution",
        "If the training does not fit into memory in any other way, lower the resolution (to no less than 384) "
        "instead of stopping.",
        group="memory",
        task="text-to-image",
        instead="a lower max_seq_length needs less memory",
    )

    continue_from: str | None = setting(
        None,
        "Continue from",
        "A LoRA file to start from instead of from scratch, made by any trainer for the same kind of base model. Its "
        "layers, ranks and algorithm are kept, unless the rank is set here.",
        group="run",
        path="path",
    )

    @field_validator("memory")
    @classmethod
    def _is_auto_fixed_or_gigabytes(cls, text: str) -> str:
        word = text.lower() or "auto"
        if word in ("auto", "fixed"):
            return word
        found = re.fullmatch(r"(\d+(?:\.\d+)?) *(?:gb)?", word)
        if found is None or not float(found[1]):
            raise ValueError("it must be auto, fixed, or a number of GB above 0, such as 8 GB")
        return f"{float(found[1]):g} GB"

    @property
    def memory_limit(self) -> int | None:
        """The most bytes of the device's memory that training may use, or None if no number was given."""
        return int(float(self.memory.removesuffix(" GB")) * 1e9) if self.memory.endswith(" GB") else None
