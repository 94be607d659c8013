"""How the learning rate changes over a run."""

from __future__ import annotations

from diffusers.optimization import get_scheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .config import ResolvedConfig


def make_schedule(optimizer: Optimizer, config: ResolvedConfig) -> LambdaLR | None:
    """diffusers' schedule of the config's name, with its warmup; None for an optimizer that has its own warmup and
    needs no schedule."""
    if config.optimizer == "schedule_free_adamw":
        return None
    schedule: LambdaLR = get_scheduler(
        "constant_with_warmup" if config.lr_scheduler == "constant" else config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=config.max_train_steps,
        num_cycles=config.lr_scheduler_num_cycles,
        power=config.lr_scheduler_power,
    )
    return schedule
