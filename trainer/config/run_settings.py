"""The settings of checkpoints, resuming and memory."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from .setting import setting

AUTO = "auto"
"""The value of `report_to` that stands for TensorBoard if it is installed."""

TRACKERS = {"tensorboard": "TensorBoard", "wandb": "Weights & Biases"}
"""The programs that a run can be shown in while it trains, by the names of their packages."""


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
    save_every_n_epochs: int = setting(
        0,
        "Epochs between checkpoints",
        "Epochs between two checkpoints, instead of the steps in save_steps; 0 counts steps.",
        group="run",
        step=1,
        ge=0,
        le=10_000,
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
    reserve_memory: float = setting(
        0.0,
        "Reserve memory",
        "GB of the device's memory (on a CPU: of main memory) that training leaves free for whatever else the machine "
        "is used for meanwhile.",
        group="run",
        step=0.5,
        ge=0.0,
        le=1000.0,
    )
    report_to: str = setting(
        AUTO,
        "Report to",
        "Where to show the run while it trains: tensorboard (curves in the folder of the run), wandb (Weights & "
        "Biases, which sends settings, losses and samples to its server), both, or none. auto is tensorboard if it is "
        "installed.",
        group="run",
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

    @field_validator("report_to", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return ", ".join(value)
        return value

    @field_validator("report_to")
    @classmethod
    def _are_installed_trackers(cls, text: str) -> str:
        names = [name for name in re.split(r"[,\s]+", text.lower()) if name] or ["none"]
        if names in ([AUTO], ["none"]):
            return names[0]
        if not set(names) <= TRACKERS.keys():
            raise ValueError(f"it must be auto, none, {', '.join(TRACKERS)}, or both of the last two")
        for name in names:
            if find_spec(name) is None:
                raise ValueError(
                    f"the package {name} is not installed; install it with pip install {name}, or set it to none"
                )
        return ", ".join(dict.fromkeys(names))

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
    def reserved_memory(self) -> int:
        """The bytes of the device's memory that training leaves free."""
        return int(self.reserve_memory * 1e9)

    @property
    def memory_limit(self) -> int | None:
        """The most bytes of the device's memory that training may use, or None if no number was given."""
        return int(float(self.memory.removesuffix(" GB")) * 1e9) if self.memory.endswith(" GB") else None
