"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .base_models.base import CachedSample, RowLosses
from .config import ResolvedConfig
from .errors import CrucibleError
from .guard.memory import Memory
from .optimization import Optimization
from .order import BatchOrder
from .rng import derived_seed
from .step_report import RowResult, StepReport

Losses = Callable[[Sequence[CachedSample], Sequence[int]], RowLosses]
"""A base model's `losses`."""


def train(
    losses: Losses,
    optimization: Optimization,
    samples: Sequence[CachedSample],
    order: BatchOrder,
    config: ResolvedConfig,
    memory: Memory,
    *,
    first_step: int = 0,
    go_back: Callable[[], int],
    on_step: Callable[[StepReport], None],
) -> None:
    """Train the weights of `optimization` from step `first_step`, counted from 0, to `config.max_train_steps`.

    Every image of a step weighs the same, however the step is cut into batches. A step that runs out of memory is done
    again as `memory` then cuts it; its random numbers come from the seed and its number, so they are the same.

    Args:
        go_back: restores an earlier state, and says which step comes next. For when the optimizer was interrupted.
        on_step: runs after each step and may raise to stop.

    Raises:
        CrucibleError: the loss is not a finite number; the weights are those of the step before. Or no way is left to
            make do with the memory.
    """
    step = first_step
    while step < config.max_train_steps:
        started = time.perf_counter()
        batches = order.step(step)
        names = [samples[index].name for batch in batches for index in batch]
        try:
            values = _gradients(losses, optimization, samples, memory.micro_batches(batches), config.seed, step)
            norm = optimization.clip_gradients()
            numbers = torch.cat([values.flatten(), norm.to(values).reshape(1)]).tolist()  # the one wait for the device
            row_losses, errors, timesteps = (numbers[part * len(names) : (part + 1) * len(names)] for part in range(3))
            loss = sum(row_losses) / len(names)
            if not math.isfinite(loss):
                raise CrucibleError(
                    f"The loss of step {step + 1} is {loss}, so its gradients would have destroyed the LoRA. It "
                    f"happened with {', '.join(sorted(set(names)))}. Lower learning_rate (it is "
                    f"{config.learning_rate:g}), or set mixed_precision to bf16 or fp32 if it is fp16."
                )
            rates = optimization.step()
        except Exception as error:
            memory.give_way(error, step + 1)
            optimization.forget_gradients()
            if optimization.is_between:  # its state is of no use
                step = go_back()
            continue
        report = StepReport(
            step=step + 1,
            loss=loss,
            rows=tuple(map(RowResult, names, errors, timesteps)),
            learning_rates=rates,
            gradient_norm=numbers[-1],
            seconds=time.perf_counter() - started,
            memory_gb=memory.peak_gb(),
        )
        on_step(report)
        step += 1


def _gradients(
    losses: Losses,
    optimization: Optimization,
    samples: Sequence[CachedSample],
    batches: Sequence[Sequence[int]],
    seed: int,
    step: int,
) -> Tensor:
    """Forward and backward of each batch. Losses, errors and timesteps of all rows: (3, rows)."""
    # Only dropout draws from the global generator.
    torch.manual_seed(derived_seed(seed, "dropout", step))
    count = sum(len(batch) for batch in batches)
    parts: list[Tensor] = []
    done = 0
    for batch in batches:
        seeds = [derived_seed(seed, "row", step, done + row) for row in range(len(batch))]
        rows = losses([samples[index] for index in batch], seeds)
        optimization.backward(rows.values.sum() / count)
        parts.append(torch.stack([rows.values.detach(), rows.errors, rows.timesteps]))
        done += len(batch)
    return torch.cat(parts, dim=1)
