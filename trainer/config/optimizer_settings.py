"""The settings of the optimizer and its learning rate schedule."""

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
"""The package, by its name on PyPI, that provides each optimizer that is not part of torch or transformers."""


class OptimizerSettings(BaseModel):
    """The settings of the optimizer, part of every `TrainingConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: OptimizerName = setting(
        "adamw",
        "Optimizer",
        "adamw suits nearly everything. adamw_8bit (CUDA only) and adafactor need less memory. lion needs about a "
        "fifth of the learning rate. prodigy finds the learning rate itself, and schedule_free_adamw needs no "
        "schedule. Only optimizers whose package is installed are listed.",
        group="optimizer",
        aliases=("optimizer_type", "optim"),
        value_aliases={
            "adamw_torch": "adamw",
            "adamw_torch_fused": "adamw",
            "adamw_hf": "adamw",
            "paged_adamw": "adamw",
            "paged_adamw_32bit": "adamw",
            "paged_adamw_8bit": "adamw_8bit",
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
        "Decay of the running average of the gradients (momentum). Higher is smoother but reacts more slowly; 0.9 is "
        "usual.",
        group="optimizer",
        step=0.01,
        ge=0.0,
        le=0.9999,
    )
    adam_beta2: float | None = setting(
        None,
        "Beta 2",
        "Decay of the running average of the squared gradients, or of the momentum for lion. Higher is smoother but "
        "reacts more slowly; 0.999 is usual, 0.99 for lion.",
        group="optimizer",
        step=0.001,
        gt=0.0,
        le=0.99999,
    )
    lr_scheduler: ScheduleName | None = setting(
        None,
        "Schedule",
        "How the learning rate changes after the warmup: constant keeps it, the others lower it to zero. auto is "
        "cosine, or constant for schedule_free_adamw.",
        group="optimizer",
        aliases=("lr_scheduler_type",),
        value_aliases={"constant_with_warmup": "constant"},
    )
    lr_scheduler_num_cycles: int = setting(
        1,
        "Restarts",
        "How many times cosine_with_restarts goes from the full learning rate down to zero.",
        group="optimizer",
        step=1,
        ge=1,
        le=1000,
    )
    lr_scheduler_power: float = setting(
        1.0,
        "Power",
        "Shape of polynomial: 1 falls in a straight line, higher falls faster at first and more slowly later.",
        group="optimizer",
        step=0.5,
        gt=0.0,
        le=10.0,
    )
    lr_warmup_ratio: float | None = setting(
        None,
        "Warmup share",
        "Length of the warmup as a fraction of all steps, instead of in steps: 0.1 is a tenth of the run.",
        group="optimizer",
        step=0.01,
        aliases=("warmup_ratio",),
        ge=0.0,
        le=0.9,
    )
    ema_decay: float = setting(
        0.0,
        "Weight averaging",
        "Use an exponential moving average of the weights for samples, validation and the saved file. 0.99 to 0.999 "
        "gives a steadier result; higher averages over more steps. 0 turns it off.",
        group="optimizer",
        step=0.001,
        ge=0.0,
        le=0.9999,
    )
