"""The settings that say how a run is watched."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from .setting import setting


class GuardSettings(BaseModel):
    """Validation, early stopping, and what is measured of the result. Part of every `TrainingConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    validate_every_n_steps: int | None = setting(
        None,
        "Validate every",
        "Steps between two measurements on the images that are kept for validation.",
        group="validation",
        advanced=True,
        step=1,
        aliases=("eval_steps", "validation_steps"),
        ge=1,
        le=1_000_000,
    )
    early_stopping_patience: int = setting(
        3,
        "Early stopping",
        "The training ends when this many measurements in a row on the validation images were no better than the "
        "best. 0 never ends it early.",
        group="validation",
        advanced=True,
        step=1,
        ge=0,
        le=1000,
    )
    early_stopping_threshold: float = setting(
        0.001,
        "Early stopping threshold",
        "How much lower than the best the error on the validation images must be to count as better, as a share of "
        "the best.",
        group="validation",
        advanced=True,
        step=0.001,
        ge=0.0,
        le=1.0,
    )
    measure: Literal["auto", "always", "never"] = setting(
        "auto",
        "Measure the result",
        "Draw a few pictures with and without the LoRA at the end, to see how far it drifts from the model, whether it "
        "copies its images, and whether it needs its trigger word. auto does so unless the run is short or a quick "
        "test, or the pictures would take more than half of its time.",
        group="validation",
        advanced=True,
    )
    downweight_hard_images: bool = setting(
        False,
        "Count hard images less",
        "Images whose error stays far above that of the others count half, as long as it does: often their caption is "
        "wrong, or they do not belong to the rest.",
        group="validation",
        advanced=True,
    )
