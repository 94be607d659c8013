"""The settings that say how a run is kept safe."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, field_validator

from .setting import setting


class RunSettings(BaseModel):
    """Checkpoints, resuming, memory, and what a run starts from. Part of every `TrainingConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    save_steps: int | None = setting(
        None,
        "Checkpoint every",
        "Steps between two checkpoints, from which a run goes on after a crash or Cancel. auto writes one a minute; "
        "one is always written on Cancel and at the end.",
        group="output",
        advanced=True,
        step=1,
        aliases=("save_every_n_steps", "checkpointing_steps"),
        ge=1,
        le=1_000_000,
    )
    checkpoints_kept: int = setting(
        2,
        "Checkpoints kept",
        "How many of the latest checkpoints of a run stay. Of a finished run the last one does, so that it can be "
        "trained for more steps; with 0 none.",
        group="output",
        advanced=True,
        step=1,
        aliases=("save_total_limit", "checkpoints_total_limit"),
        ge=0,
        le=1000,
    )
    resume_from_checkpoint: str | None = setting(
        None,
        "Resume from checkpoint",
        "Folder of a checkpoint to go on from. Without it the latest checkpoint of the same run is found.",
        group="output",
        advanced=True,
    )
    memory: str = setting(
        "auto",
        "Memory",
        "auto uses what is free, and makes do with less when it runs out: fewer images at a time, gradient "
        "checkpointing, more of the model in the computer's own memory. A number of GB, as in 8 GB, is a limit to plan "
        "for. fixed changes nothing: what does not fit is an error.",
        group="training",
        advanced=True,
    )
    allow_lower_resolution: bool = setting(
        False,
        "Allow lower resolution",
        "When memory does not suffice in any other way, train at a lower resolution (384 at least) instead.",
        group="training",
        advanced=True,
    )

    continue_from: str | None = setting(
        None,
        "Continue from",
        "A LoRA file to start from, of this kind of base model and of any trainer, instead of from zero. Its layers, "
        "ranks and algorithm stay, unless the rank is set here.",
        group="training",
        advanced=True,
    )

    @field_validator("memory")
    @classmethod
    def _is_auto_fixed_or_gigabytes(cls, text: str) -> str:
        word = text.lower() or "auto"
        if word in ("auto", "fixed"):
            return word
        found = re.fullmatch(r"(\d+(?:\.\d+)?) *(?:gb)?", word)
        if found is None or not float(found[1]):
            raise ValueError("it must be auto, fixed, or a number of GB above 0, as in 8 GB")
        return f"{float(found[1]):g} GB"

    @property
    def memory_limit(self) -> int | None:
        """Bytes that the training may take of the device; None where no number was given."""
        return int(float(self.memory.removesuffix(" GB")) * 1e9) if self.memory.endswith(" GB") else None
