"""The settings that say how a run is monitored."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from .setting import setting


class GuardSettings(BaseModel):
    """The settings of validation, early stopping and the final measurement, part of every `TrainingConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    validate_every_n_steps: int | None = setting(
        None,
        "Validate every",
        "Steps between two measurements of the loss on the validation images or rows.",
        group="validation",
        step=1,
        aliases=("eval_steps", "validation_steps"),
        ge=1,
        le=1_000_000,
    )
    early_stopping_patience: int = setting(
        3,
        "Early stopping",
        "Stop training after this many validation measurements in a row that do not improve on the best one. Higher "
        "waits longer; 0 never stops early.",
        group="validation",
        step=1,
        ge=0,
        le=1000,
    )
    early_stopping_threshold: float = setting(
        0.001,
        "Early stopping threshold",
        "How far the validation loss must fall below the best one to count as an improvement, as a fraction of the "
        "best. Higher stops sooner.",
        group="validation",
        step=0.001,
        ge=0.0,
        le=1.0,
    )
    measure: Literal["auto", "always", "never"] = setting(
        "auto",
        "Measure the result",
        "Generate a few samples with and without the LoRA at the end, to measure how far it drifts from the model, "
        "whether it copies the training data and, for images, whether it needs its trigger word. auto skips this for "
        "short runs and quick tests, and when it would take more than half as long as the training.",
        group="validation",
    )
    downweight_hard_images: bool = setting(
        False,
        "Count hard images less",
        "Halve the weight of images for as long as their loss stays far above that of the others: often their caption "
        "is wrong, or they do not belong in the dataset.",
        group="validation",
    )
