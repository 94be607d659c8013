"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

from .base_models.base import CachedSample, RowLosses
from .config import ResolvedConfig
from .errors import CrucibleError
from .optimization import Optimization
from .order import BatchOrder
from .rng import derived_seed
from .step_report import RowResult, StepReport, memory_gb

Losses = Callable[[Sequence[CachedSample], Sequence[int]], RowLosses]
"""A base model's `losses`."""


def train(
    losses: Losses,
    optimization: Optimization,
    samples: Sequence[CachedSample],
    order: BatchOrder,
    config: ResolvedConfig,
    *,
    first_step: int = 0,
    on_step: Callable[[StepReport], None],
) -> None:
    """Train the weights of `optimization` from step `first_step`, counted from 0, to `config.max_train_steps`.

    Every image of a step weighs the same, however the step is cut into batches. `on_step` runs after each step and
    may raise to stop.

    Raises:
        CrucibleError: the loss is not a finite number; the weights are those of the step before.
    """
    for step in range(first_step, config.max_train_steps):
        started = time.perf_counter()
        batches = order.step(step)
        count = sum(len(batch) for batch in batches)
        # Only dropout draws from the global generator.
        torch.manual_seed(derived_seed(config.seed, "dropout", step))
        parts = []
        done = 0
        for batch in batches:
            seeds = [derived_seed(config.seed, "row", step, done + row) for row in range(len(batch))]
            rows = losses([samples[index] for index in batch], seeds)
            optimization.backward(rows.values.sum() / count)
            parts.append(torch.stack([rows.values.detach(), rows.errors, rows.timesteps]))
            done += len(batch)

        norm = optimization.clip_gradients()
        values = torch.cat(parts, dim=1)
        numbers = torch.cat(
            [values.flatten(), norm.to(values).reshape(1)]
        ).tolist()  # the step's one wait for the device
        row_losses, errors, timesteps = (numbers[part * count : (part + 1) * count] for part in range(3))
        loss = sum(row_losses) / count
        names = [samples[index].name for batch in batches for index in batch]
        if not math.isfinite(loss):
            raise CrucibleError(
                f"The loss of step {step + 1} is {loss}, so its gradients would have destroyed the LoRA. It happened "
                f"with {', '.join(sorted(set(names)))}. Lower learning_rate (it is {config.learning_rate:g}), or set "
                "mixed_precision to bf16 or fp32 if it is fp16."
            )
        rates = optimization.step()
        report = StepReport(
            step=step + 1,
            loss=loss,
            rows=tuple(map(RowResult, names, errors, timesteps)),
            learning_rates=rates,
            gradient_norm=numbers[-1],
            seconds=time.perf_counter() - started,
            memory_gb=memory_gb(optimization.device),
        )
        on_step(report)
