"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..config import ResolvedConfig
from ..data.batch_sampler import BatchSampler, shares
from ..distributed.passes import TroubleElsewhere
from ..errors import CrucibleError
from ..events.step import Gradients, RowResult, StepReport
from ..hardware.out_of_memory import Attempt, forget_tensors
from ..memory.step_memory import StepMemory
from ..models.examples import CachedExample, RowLosses
from ..models.memory_controls import MemoryControls
from ..monitoring.anomalies import AnomalyDetector
from ..optim.stepper import OptimizerStepper
from ..seeding import derived_seed

COMPARED_STEPS = 25
"""The number of steps after which several processes compare their weights."""

Losses = Callable[[Sequence[CachedExample], Sequence[int]], RowLosses]
"""A function that computes the losses of a batch of rows, given one seed per row."""


class TrainingLoop:
    """Trains the weights of `stepper`, step by step.

    Each example of a step counts by its weight, however the step is split into batches and among processes. A step that
    runs out of memory (OOM) in any process is repeated with the smaller batches that `memory` then plans. Its random
    numbers depend only on the seed, the step number and the row in the step, so they stay the same. A step whose loss
    or gradient is NaN sends the run back to its last good state.

    Several processes wait for each other once in a step. What they decide by is the same in all of them after that, so
    that they decide alike.

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
        self._sizes = [example.size for example in examples]
        self._processes = stepper.engine.processes
        self._first = 0
        self._peak_elsewhere = 0.0

    def run(self, done: int) -> None:
        """Train up to `max_train_steps`.

        Args:
            done: the number of steps that are already done.

        Raises:
            CrucibleError: there is not enough memory for a step, or the run has gone back to an earlier state too
                often.
        """
        self._first = done
        while done < self._config.max_train_steps:
            self._done = done
            report = self._controls.first_that_fits_together(self._attempts()).required()
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
        gradients = self._gradients(step)
        action = self._anomalies.judge(step + 1, gradients)
        if action == "go back":
            return None
        return StepReport(
            step=step + 1,
            loss=gradients.loss,
            rows=gradients.rows,
            learning_rates=self._stepper.skip() if action == "skip" else self._stepper.step(),
            gradient_norm=gradients.norm,
            seconds=time.perf_counter() - started,
            memory_gb=max(self._memory.peak_gb(), self._peak_elsewhere),
            skipped=action == "skip",
        )

    def _gradients(self, step: int) -> Gradients:
        """Compute the gradients of a step, add them up over all processes, and clip them."""
        batches = self._batches.step(step)
        examples = [self._examples[index] for batch in batches for index in batch]
        count, total = len(examples), sum(example.weight for example in examples)
        engine, several, rank = self._stepper.engine, self._processes.count, self._processes.rank
        is_compared = several > 1 and (step == self._first or step % COMPARED_STEPS == 0)
        # Every process fills in its own places, and finds those of the others filled in after the sum.
        rows = torch.zeros(3, count, device=engine.device)
        facts = torch.zeros(3, several, device=engine.device)
        trouble: BaseException | None = None
        try:
            with self._processes.passes.together():
                self._do_passes(batches, step, total, rows)
            facts[1, rank] = self._memory.peak_gb()
        except TroubleElsewhere:
            self._stepper.forget_gradients()
        except BaseException as error:  # ComfyUI's Cancel and Ctrl-C are not Exceptions
            if several == 1:
                raise
            trouble = error
            self._free_after(error)
            facts[0, rank] = 1.0
        if is_compared:
            facts[2, rank] = self._stepper.checksum()
        sums = engine.reduce(self._stepper.parameters, torch.cat([rows.flatten(), facts.flatten()]))
        norm = self._stepper.clip_gradients()
        # Except for `reduce`, the only time that the step waits for the device.
        numbers = torch.cat([sums, norm.to(sums).reshape(1)]).tolist()
        losses, errors, levels = (numbers[part * count : (part + 1) * count] for part in range(3))
        in_trouble, peaks, checksums = (
            numbers[3 * count + part * several : 3 * count + (part + 1) * several] for part in range(3)
        )
        if any(in_trouble):
            self._stepper.forget_gradients()
            self._processes.settle(trouble, self._controls.is_out_of_memory)
        self._require_same_weights(step, checksums)
        self._peak_elsewhere = max(peaks)
        names = [example.name for example in examples]
        timesteps = [None if math.isnan(level) else level for level in levels]
        mean = sum(loss * example.weight for loss, example in zip(losses, examples, strict=True)) / total
        return Gradients(mean, tuple(losses), tuple(map(RowResult, names, errors, timesteps)), numbers[-1])

    def _do_passes(self, batches: Sequence[Sequence[int]], step: int, total: float, results: Tensor) -> None:
        """Do the forward and backward passes of this process's share of a step.

        Args:
            batches: the batches of the step.
            step: the number of the step, counted from 0.
            total: the sum of the weights of all examples of the step.
            results: where to write the loss, the error and the noise level of each row, (3, rows); without noise, the
                level is NaN.
        """
        all_shares = shares(batches, self._sizes, self._processes.count)
        share = all_shares[self._processes.rank]
        micro_batches, row = self._memory.micro_batches(share.batches), share.first
        for batch in micro_batches:
            examples = [self._examples[index] for index in batch]
            seeds = [derived_seed(self._config.seed, "row", step, number) for number in range(row, row + len(batch))]
            losses = self._losses(examples, seeds)
            weights = torch.tensor([example.weight for example in examples], device=losses.values.device)
            self._stepper.backward((losses.values * weights).sum() / total)
            none = torch.full_like(losses.errors, math.nan)
            levels = none if losses.timesteps is None else losses.timesteps
            results[:, row : row + len(batch)] = torch.stack([losses.values.detach(), losses.errors, levels])
            row += len(batch)
        if self._processes.joint:
            most = max(len(self._memory.plan.micro_batches(one.batches)) for one in all_shares)
            for _ in range(most - len(micro_batches)):  # the others need this process for their passes
                self._stepper.backward(self._losses([self._examples[batches[0][0]]], [0]).values.sum() * 0)

    def _free_after(self, error: BaseException) -> None:
        """Make room for an exchange with the other processes after an error."""
        if self._controls.is_out_of_memory(error):
            forget_tensors(error)
            self._stepper.forget_gradients()
            self._controls.free()

    def _require_same_weights(self, step: int, checksums: Sequence[float]) -> None:
        """Check that all processes have the same weights.

        Raises:
            CrucibleError: some have others than the main one.
        """
        different = [rank for rank, checksum in enumerate(checksums) if checksum != checksums[0]]
        if different:
            raise CrucibleError(
                f"After step {step}, {self._processes.name(different[0])} has other weights than the main one, so the "
                "gradients that they add up no longer belong to the same LoRA. That happens with defective memory, or "
                "with cards or versions of torch that round differently. Start the same command again on equal "
                "machines: it resumes from the last checkpoint."
            )
