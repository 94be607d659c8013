"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import nn

from .base_models.base import CachedSample, RowLosses
from .config import ResolvedConfig
from .errors import CrucibleError
from .order import BatchOrder
from .rng import derived_seed

Losses = Callable[[Sequence[CachedSample], Sequence[int]], RowLosses]
"""A base model's `losses`."""


@dataclass(frozen=True)
class StepReport:
    """What happened in an optimizer step; `step` counts from 1."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float


def train(
    losses: Losses,
    parameters: list[nn.Parameter],
    samples: Sequence[CachedSample],
    order: BatchOrder,
    config: ResolvedConfig,
    *,
    scaler: torch.amp.GradScaler,
    on_step: Callable[[StepReport], None],
) -> None:
    """Train `parameters` for `config.max_train_steps` steps.

    Every image of a step weighs the same, however the step is cut into batches. `on_step` runs after each step and
    may raise to stop.

    Raises:
        CrucibleError: the loss is not a finite number; the parameters are those of the step before.
    """
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    scheduler = get_cosine_schedule_with_warmup(optimizer, config.lr_warmup_steps, config.max_train_steps)

    for step in range(config.max_train_steps):
        batches = order.step(step)
        rows = sum(len(batch) for batch in batches)
        # Only dropout draws from the global generator.
        torch.manual_seed(derived_seed(config.seed, "dropout", step))
        total = torch.zeros((), device=parameters[0].device)
        done = 0
        for batch in batches:
            seeds = [derived_seed(config.seed, "row", step, done + row) for row in range(len(batch))]
            loss = losses([samples[index] for index in batch], seeds).values.sum() / rows
            scaler.scale(loss).backward()
            total += loss.detach()
            done += len(batch)

        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        loss_value, norm_value = torch.stack([total, norm]).tolist()  # the step's one wait for the device
        if not math.isfinite(loss_value):
            names = sorted({samples[index].name for batch in batches for index in batch})
            raise CrucibleError(
                f"The loss of step {step + 1} is {loss_value}, so its gradients would have destroyed the LoRA. It "
                f"happened with {', '.join(names)}. Lower learning_rate (it is {config.learning_rate:g}), or set "
                "mixed_precision to bf16 or fp32 if it is fp16."
            )
        learning_rate = scheduler.get_last_lr()[0]
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        on_step(StepReport(step + 1, loss_value, learning_rate, norm_value))
