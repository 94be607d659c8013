"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..config import ResolvedConfig
from ..data.batch_sampler import BatchSampler
from ..events.step import Gradients, RowResult, StepReport
from ..memory.step_memory import StepMemory
from ..models.base import CachedExample, RowLosses
from ..monitoring.anomalies import AnomalyDetector
from ..optim.stepper import OptimizerStepper
from ..seeding import derived_seed

Losses = Callable[[Sequence[CachedExample], Sequence[int]], RowLosses]
"""A base model's `losses`."""


def train(
    losses: Losses,
    optimization: OptimizerStepper,
    samples: Sequence[CachedExample],
    order: BatchSampler,
    config: ResolvedConfig,
    memory: StepMemory,
    trouble: AnomalyDetector,
    *,
    first_step: int = 0,
    on_step: Callable[[StepReport], None],
    go_back: Callable[[], int],
) -> None:
    """Train the weights of `optimization` from step `first_step`, counted from 0, to `config.max_train_steps`.

    Every image of a step weighs the same, however the step is cut into batches. A step that runs out of memory is done
    again as `memory` then cuts it; its random numbers come from the seed and its number, so they are the same.

    Args:
        on_step: runs after each step and may raise to stop.
        go_back: puts everything back to the last good state and says which step comes next; raises when trouble has
            made that happen too often.

    Raises:
        CrucibleError: no way is left to make do with the memory.
    """
    step = first_step
    while step < config.max_train_steps:
        started = time.perf_counter()
        try:
            batches = memory.micro_batches(order.step(step))
            gradients = _gradients(losses, optimization, samples, batches, config.seed, step)
            action = trouble.judge(step + 1, gradients)
            if action != "go back":
                rates = optimization.skip() if action == "skip" else optimization.step()
        except Exception as error:
            memory.handle_oom(error, step + 1)
            optimization.forget_gradients()
            if optimization.mid_step:  # its state is of no use
                step = go_back()
            continue
        if action == "go back":
            step = go_back()
            continue
        report = StepReport(
            step=step + 1,
            loss=gradients.loss,
            rows=gradients.rows,
            learning_rates=rates,
            gradient_norm=gradients.norm,
            seconds=time.perf_counter() - started,
            memory_gb=memory.peak_gb(),
            skipped=action == "skip",
        )
        on_step(report)
        step += 1


def _gradients(
    losses: Losses,
    optimization: OptimizerStepper,
    samples: Sequence[CachedExample],
    batches: Sequence[Sequence[int]],
    seed: int,
    step: int,
) -> Gradients:
    """Compute the gradients of a step, and clip them."""
    count = sum(len(batch) for batch in batches)
    parts: list[Tensor] = []
    done = 0
    for batch in batches:
        seeds = [derived_seed(seed, "row", step, done + row) for row in range(len(batch))]
        rows = losses([samples[index] for index in batch], seeds)
        optimization.backward(rows.values.sum() / count)
        parts.append(torch.stack([rows.values.detach(), rows.errors, rows.timesteps]))
        done += len(batch)

    norm = optimization.clip_gradients()
    values = torch.cat(parts, dim=1)
    numbers = torch.cat([values.flatten(), norm.to(values).reshape(1)]).tolist()  # the step's one wait for the device
    row_losses, errors, timesteps = (numbers[part * count : (part + 1) * count] for part in range(3))
    names = [samples[index].name for batch in batches for index in batch]
    rows_shown = tuple(map(RowResult, names, errors, timesteps))
    return Gradients(sum(row_losses) / count, tuple(row_losses), rows_shown, numbers[-1])
