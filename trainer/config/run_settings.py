"""The settings that say how a run is kept safe."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from .setting import setting


class RunSettings(BaseModel):
    """Checkpoints and resuming. Part of every `TrainingConfig`."""

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
