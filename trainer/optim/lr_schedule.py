"""Schedules of the learning rate over a run."""

from __future__ import annotations

from diffusers.optimization import get_polynomial_decay_schedule_with_warmup, get_scheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..config import ResolvedConfig


def make_schedule(optimizer: Optimizer, config: ResolvedConfig) -> LambdaLR | None:
    """Create the schedule that the config names, with its warmup, using diffusers.

    Returns:
        The schedule, or None for an optimizer that has its own warmup and needs no schedule.
    """
    if config.optimizer == "schedule_free_adamw":
        return None
    warmup, steps = config.lr_warmup_steps, config.max_train_steps
    schedule: LambdaLR
    if config.lr_scheduler == "polynomial":
        # By default it ends at 1e-7, and rejects learning rates that are not above that.
        schedule = get_polynomial_decay_schedule_with_warmup(
            optimizer, warmup, steps, lr_end=0.0, power=config.lr_scheduler_power
        )
        return schedule
    schedule = get_scheduler(
        "constant_with_warmup" if config.lr_scheduler == "constant" else config.lr_scheduler,
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=steps,
        num_cycles=config.lr_scheduler_num_cycles,
    )
    return schedule
