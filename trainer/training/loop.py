"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..config import ResolvedConfig
from ..data.batch_sampler import BatchSampler
from ..events.step import Gradients, RowResult, StepReport
from ..hardware.out_of_memory import Attempt
from ..memory.step_memory import StepMemory
from ..models.examples import CachedExample, RowLosses
from ..models.memory_controls import MemoryControls
from ..monitoring.anomalies import AnomalyDetector
from ..optim.stepper import OptimizerStepper
from ..seeding import derived_seed

Losses = Callable[[Sequence[CachedExample], Sequence[int]], RowLosses]
"""A function that computes the losses of a batch of rows, given one seed per row."""


class TrainingLoop:
    """Trains the weights of `stepper`, step by step.

    Each example of a step counts by its weight, however the step is split into batches. A step that runs out of memory
    (OOM) is repeated with the smaller batches that `memory` then plans. Its random numbers depend only on the seed and
    the step number, so they stay the same. A step whose loss or gradient is NaN sends the run back to its last good
    state.

    Args:
        losses: computes the losses of a batch.
        stepper: the trained weights with their optimizer.
        examples: the examples to train on.
        batches: the batches of each step.
        config: the settings of the run.
        memory: splits steps so that they fit into memory.
        controls: the memory controls of the base model.
        anomalies: decides what to do with the gradients of a step.
        go_back: restores the last good state and returns the number of steps done in it; raises if that has happened
            too often.
        on_step: a function called after each step, which may raise to stop the run.
    """

    def __init__(
        self,
        losses: Losses,
        stepper: OptimizerStepper,
        examples: Sequence[CachedExample],
        batches: BatchSampler,
        config: ResolvedConfig,
        memory: StepMemory,
        controls: MemoryControls,
        anomalies: AnomalyDetector,
        go_back: Callable[[], int],
        on_step: Callable[[StepReport], None],
    ) -> None:
        self._losses, self._stepper = losses, stepper
        self._examples, self._batches, self._config = examples, batches, config
        self._memory, self._controls, self._anomalies = memory, controls, anomalies
        self._go_back, self._on_step = go_back, on_step

    def run(self, done: int) -> None:
        """Train up to `max_train_steps`.

        Args:
            done: the number of steps that are already done.

        Raises:
            CrucibleError: there is not enough memory for a step, or the run has gone back to an earlier state too
                often.
        """
        while done < self._config.max_train_steps:
            self._done = done
            report = self._controls.first_that_fits(self._attempts()).required()
            if report is None:
                done = self._go_back()
                continue
            self._on_step(report)
            done = report.step

    def _attempts(self) -> Iterator[Attempt[StepReport | None]]:
        """Yield attempts at the next step, each after an out-of-memory error (OOM) in the one before."""
        for attempt in self._memory.attempts(self._step, self._done + 1):
            if self._stepper.mid_step:  # running out of memory left the weights in an inconsistent state
                self._done = self._go_back()
            yield attempt

    def _step(self) -> StepReport | None:
        """Do one step; return None if its loss or gradients are NaN or infinite, so that training has to go back."""
        started, step = time.perf_counter(), self._done
        batches = self._memory.micro_batches(self._batches.step(step))
        gradients = self._gradients(batches, step)
        action = self._stepper.engine.agree(self._anomalies.judge(step + 1, gradients))
        if action == "go back":
            return None
        return StepReport(
            step=step + 1,
            loss=gradients.loss,
            rows=gradients.rows,
            learning_rates=self._stepper.skip() if action == "skip" else self._stepper.step(),
            gradient_norm=gradients.norm,
            seconds=time.perf_counter() - started,
            memory_gb=self._memory.peak_gb(),
            skipped=action == "skip",
        )

    def _gradients(self, batches: Sequence[Sequence[int]], step: int) -> Gradients:
        """Compute and clip the gradients of a step."""
        seed = self._config.seed
        total = sum(self._examples[index].weight for batch in batches for index in batch)
        parts: list[Tensor] = []
        done, has_noise = 0, True
        for batch in batches:
            examples = [self._examples[index] for index in batch]
            rows = self._losses(examples, [derived_seed(seed, "row", step, done + row) for row in range(len(batch))])
            weights = torch.tensor([example.weight for example in examples], device=rows.values.device)
            self._stepper.backward((rows.values * weights).sum() / total)
            noise = torch.zeros_like(rows.errors) if rows.timesteps is None else rows.timesteps
            has_noise = has_noise and rows.timesteps is not None
            parts.append(torch.stack([rows.values.detach(), rows.errors, noise, weights.to(rows.errors)]))
            done += len(batch)

        norm = self._stepper.clip_gradients()
        values = torch.cat(parts, dim=1)
        # The only time that the step waits for the device.
        numbers = torch.cat([values.flatten(), norm.to(values).reshape(1)]).tolist()
        losses, errors, levels, weight = (numbers[part * done : (part + 1) * done] for part in range(4))
        timesteps: list[float | None] = [*levels] if has_noise else [None] * done
        names = [self._examples[index].name for batch in batches for index in batch]
        mean = sum(loss * count for loss, count in zip(losses, weight, strict=True)) / total
        return Gradients(mean, tuple(losses), tuple(map(RowResult, names, errors, timesteps)), numbers[-1])
