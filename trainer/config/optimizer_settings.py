"""The settings of the optimizer and of its learning rate over the run."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from .setting import setting

OptimizerName = Literal["adamw", "adamw_8bit", "adafactor", "lion", "prodigy", "schedule_free_adamw"]
ScheduleName = Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"]

OPTIMIZER_PACKAGES = {
    "adamw_8bit": "bitsandbytes",
    "lion": "lion-pytorch",
    "prodigy": "prodigyopt",
    "schedule_free_adamw": "schedulefree",
}
"""What has to be installed for an optimizer that is not part of torch or transformers, by the name pip knows."""


class OptimizerSettings(BaseModel):
    """How gradients become changes of the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: OptimizerName = setting(
        "adamw",
        "Optimizer",
        "adamw suits nearly everything. adamw_8bit (CUDA only) and adafactor need less memory. lion takes a fifth of "
        "the learning rate. prodigy finds the learning rate itself, and schedule_free_adamw needs no schedule. Listed "
        "are those whose package is installed.",
        group="training",
        advanced=True,
        aliases=("optimizer_type", "optim"),
        value_aliases={
            "adamw_torch": "adamw",
            "adamw_torch_fused": "adamw",
            "adamw8bit": "adamw_8bit",
            "adamw_bnb_8bit": "adamw_8bit",
            "adamwschedulefree": "schedule_free_adamw",
            "adamw_schedule_free": "schedule_free_adamw",
            "schedulefree": "schedule_free_adamw",
        },
        packages=OPTIMIZER_PACKAGES,
    )
    adam_beta1: float | None = setting(
        None,
        "Beta 1",
        "Share of the past in the average of the gradients. Usually 0.9.",
        group="training",
        advanced=True,
        step=0.01,
        ge=0.0,
        le=0.9999,
    )
    adam_beta2: float | None = setting(
        None,
        "Beta 2",
        "Share of the past in the average of the squared gradients; for lion, in its second average. Usually 0.999, "
        "0.99 for lion.",
        group="training",
        advanced=True,
        step=0.001,
        gt=0.0,
        le=0.99999,
    )
    lr_scheduler: ScheduleName | None = setting(
        None,
        "Schedule",
        "How the learning rate changes after the warmup: it stays (constant) or falls to zero. auto is cosine, and "
        "constant for schedule_free_adamw.",
        group="training",
        advanced=True,
        aliases=("lr_scheduler_type",),
        value_aliases={"constant_with_warmup": "constant"},
    )
    lr_scheduler_num_cycles: int = setting(
        1,
        "Restarts",
        "How often cosine_with_restarts falls from the full learning rate to zero.",
        group="training",
        advanced=True,
        step=1,
        ge=1,
        le=1000,
    )
    lr_scheduler_power: float = setting(
        1.0,
        "Power",
        "Shape of polynomial: 1 falls in a straight line, 2 falls fast first and slowly later.",
        group="training",
        advanced=True,
        step=0.5,
        gt=0.0,
        le=10.0,
    )
    lr_warmup_ratio: float | None = setting(
        None,
        "Warmup share",
        "The warmup as a share of all steps, from 0 to 1, instead of in steps.",
        group="training",
        advanced=True,
        step=0.01,
        aliases=("warmup_ratio",),
        ge=0.0,
        le=0.9,
    )
    ema_decay: float = setting(
        0.0,
        "Weight averaging",
        "Samples, validation and the file use an exponential moving average of the weights with this share of the "
        "past: 0.99 to 0.999 makes the result steadier. 0 is off.",
        group="training",
        advanced=True,
        step=0.001,
        ge=0.0,
        le=0.9999,
    )
