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
"""A function that computes the losses of a batch of rows, given a seed for each."""


class TrainingLoop:
    """Trains the weights of `stepper`, step by step.

    Each example of a step counts by its weight, however the step is cut into batches. A step that runs out of memory is
    done again as `memory` then cuts it; its random numbers come from the seed and its number, so they are the same.

    Args:
        losses: computes the losses of a batch.
        stepper: the weights with their optimizer.
        examples: what is trained.
        batches: the batches of each step.
        config: the settings of the run.
        memory: cuts steps to fit into memory.
        controls: the base model's memory.
        anomalies: decides what to do with the gradients of a step.
        go_back: puts everything back to the last good state and returns how many steps are done there; raises if that
            has happened too often.
        on_step: called after each step; it may raise to stop.
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
            done: how many steps are done already.

        Raises:
            CrucibleError: there is not enough memory for a step, or trouble has come back too often.
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
        """Yield attempts at the next step."""
        for attempt in self._memory.attempts(self._step, self._done + 1):
            if self._stepper.mid_step:  # what ran out of memory has left the weights in an inconsistent state
                self._done = self._go_back()
            yield attempt

    def _step(self) -> StepReport | None:
        """Do one step; None if its gradients are no use and training has to go back."""
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
        """Compute the gradients of a step, and clip them."""
        seed = self._config.seed
        total = sum(self._examples[index].weight for batch in batches for index in batch)
        parts: list[Tensor] = []
        done = 0
        for batch in batches:
            examples = [self._examples[index] for index in batch]
            rows = self._losses(examples, [derived_seed(seed, "row", step, done + row) for row in range(len(batch))])
            weights = torch.tensor([example.weight for example in examples], device=rows.values.device)
            self._stepper.backward((rows.values * weights).sum() / total)
            parts.append(torch.stack([rows.values.detach(), rows.errors, rows.timesteps, weights.to(rows.errors)]))
            done += len(batch)

        norm = self._stepper.clip_gradients()
        values = torch.cat(parts, dim=1)
        numbers = torch.cat(
            [values.flatten(), norm.to(values).reshape(1)]
        ).tolist()  # the step's one wait for the device
        losses, errors, timesteps, weight = (numbers[part * done : (part + 1) * done] for part in range(4))
        names = [self._examples[index].name for batch in batches for index in batch]
        mean = sum(loss * count for loss, count in zip(losses, weight, strict=True)) / total
        return Gradients(mean, tuple(losses), tuple(map(RowResult, names, errors, timesteps)), numbers[-1])
