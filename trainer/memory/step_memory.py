"""Fits the steps of a run into memory: measures one before the first, and cuts them smaller when memory runs out."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ..config import ResolvedConfig
from ..data.batch_sampler import BatchSampler
from ..errors import CrucibleError
from ..events.step import StepReport
from ..hardware.device_memory import PeakMeter
from ..hardware.memory_holders import largest_holder
from ..hardware.out_of_memory import Attempt
from ..messages.wording import size_text
from ..models.base import BaseModel
from ..models.examples import CachedExample
from ..optim.stepper import OptimizerStepper
from ..planning.lower_resolution import LEAST
from .plan import (
    STATE_BYTES,
    MemoryPlan,
    largest_batch,
    largest_number_of_rows,
    smaller,
)

log = logging.getLogger(__name__)

Result = TypeVar("Result")

HOST_SHARE = 0.9
"""Of the host's free memory that a training may plan with: other programs want some of it too."""

PROBE = 0
"""The number of the step that is measured before the first one, which is step 1."""


class NothingFits(CrucibleError):
    """No plan is left that needs less memory."""


@dataclass(frozen=True)
class Expected:
    """Of a step on the largest images: bytes in use at most, how many there may be, and seconds."""

    peak: int
    limit: int
    seconds: float


class StepMemory:
    """
    Args:
        base_model: the base model, whose losses are measured.
        examples: what the run trains on.
        batches: the batches that the examples are trained in.
        config: the settings of the run.

    Attributes:
        plan: how steps are cut now. The effective batch is always that of `batches`.
    """

    def __init__(
        self, base_model: BaseModel, examples: Sequence[CachedExample], batches: BatchSampler, config: ResolvedConfig
    ) -> None:
        self._losses, self._controls = base_model.losses, base_model.memory
        self._examples, self._config = examples, config
        self._rows_per_step = len(examples) / batches.steps_per_epoch
        rows = largest_number_of_rows(examples, config.batch_size)
        self.plan = MemoryPlan(rows, config.gradient_checkpointing)
        self._changes: list[str] = []
        self._expected: Expected | None = None
        self._measured = 0
        self._seconds: list[float] = []

    @contextmanager
    def watched(self, stepper: OptimizerStepper) -> Iterator[None]:
        """Measure memory inside the context. The adapters are attached.

        Args:
            stepper: the trained weights and their optimizer.
        """
        self._stepper = stepper
        self._device = stepper.device
        self._controls.make_room(None, self._config.memory_limit)
        with PeakMeter(self._device) as self._meter:
            yield

    def micro_batches(self, batches: Sequence[Sequence[int]]) -> list[list[int]]:
        """The batches of a step, cut as the plan says: the same rows in the same order. The step begins here."""
        self._meter.reset()
        return self.plan.micro_batches(batches)

    def peak_gb(self) -> float:
        """The most memory in use since the step began, in GB of 10^9 bytes."""
        return self._meter.peak / 1e9

    def after_step(self, report: StepReport) -> None:
        """Take note of what a step took."""
        self._measured = max(self._measured, int(report.memory_gb * 1e9))
        self._seconds.append(report.seconds)

    def probe(self) -> None:
        """Measure forward and backward on the largest examples, and plan for less until they fit.

        Nothing that is trained changes: there is no optimizer step, and steps draw their random numbers anew.

        Raises:
            NothingFits: they do not fit, whatever the plan.
        """
        while True:
            try:
                expected = self._controls.first_that_fits(self.attempts(self._measure, PROBE)).required()
            finally:
                self._stepper.forget_gradients()
            if expected.peak <= expected.limit or self._config.memory == "fixed":
                break
            needed = f"a step would take {size_text(expected.peak)} of {size_text(expected.limit)}"
            if not self._plan_smaller(f"Measured before the first step, {needed}"):
                if self._config.memory_limit is not None:
                    raise NothingFits(self._nothing_left(needed[0].upper() + needed[1:], expected.peak))
                log.warning("%s, which is hardly enough. %s", needed, self._holder())
                break
        self._expected = expected
        for line in self.lines():
            log.info(line)

    def attempts(self, action: Callable[[], Result], step: int) -> Iterator[Attempt[Result]]:
        """Yield attempts at a step, each after the first with a plan that needs less memory than the one before.

        Args:
            action: a function that does the step as the plan says. The gradients that it leaves when it runs out of
                memory are forgotten.
            step: the number of the step, counted from 1.

        Raises:
            NothingFits: there is no smaller plan.
            CrucibleError: the config forbids one.
        """
        yield Attempt(str(self.plan), action)
        while True:
            self._handle_oom(step)
            yield Attempt(str(self.plan), action)

    def _measure(self) -> Expected:
        rows = largest_batch(self._examples, self.plan.micro_batch)
        limit = self._config.memory_limit
        # The first pass loads the model and starts the device, which is no part of a step.
        self._meter.reset()
        self._pass(rows[:1])
        peak, now = self._meter.peak, self._meter.now
        available = limit or self._controls.available(self._device)
        if self._device.type == "cuda":
            expected = 0
        else:
            # The system kills a process that takes too much rather than telling it, so this is not tried out.
            available = limit or int(HOST_SHARE * available)
            expected = now + (peak - now) * len(rows)
        to_come = self._optimizer_state()
        if expected + to_come > available and len(rows) > 1 and self._config.memory != "fixed":
            return Expected(expected + to_come, available, 0.0)
        peak, now, seconds = self._timed_pass(rows)
        self._controls.make_room(peak - now + to_come, limit)
        in_all, on_device = self._controls.weights_size()
        if on_device < in_all:  # and by what was measured, another part of the model is now
            self._pass(rows[:1])
            peak, now, seconds = self._timed_pass(rows)
        mean = sum(sample.size for sample in self._examples) / len(self._examples)
        share = self._rows_per_step * mean / sum(sample.size for sample in rows)
        return Expected(peak + to_come, available, seconds * share)

    def _timed_pass(self, rows: Sequence[CachedExample]) -> tuple[int, int, float]:
        """Bytes at most and before it, and seconds."""
        self._meter.reset()
        now, started = self._meter.now, time.perf_counter()
        self._pass(rows)
        return self._meter.peak, now, time.perf_counter() - started

    def _pass(self, rows: Sequence[CachedExample]) -> None:
        losses = self._losses(rows, range(len(rows)))
        self._stepper.backward(losses.values.sum())
        losses.values.detach().cpu()  # waits for the device

    def _optimizer_state(self) -> int:
        """Bytes that the optimizer will keep and does not yet have."""
        if self._stepper.optimizer.state:
            return 0
        numbers = sum(weight.numel() for weight in self._stepper.parameters)
        return int(numbers * STATE_BYTES[self._config.optimizer])

    def _handle_oom(self, step: int) -> None:
        """Plan for less memory after a step has run out of it."""
        self._stepper.forget_gradients()
        peak = self._meter.peak
        self._measured = max(self._measured, peak)
        name = "The step that is measured before the first" if step == PROBE else f"Step {step}"
        what = f"{name} ran out of memory at {size_text(peak)}"
        if self._config.memory == "fixed":
            raise CrucibleError(
                f"{what}, and memory is fixed, so no way to make do with less was tried (the plan: {self.plan}). "
                f"{self._kept(step)}Set memory to auto, or choose a smaller batch_size, gradient_checkpointing or a "
                f"lower resolution. {self._holder()}".rstrip()
            )
        if not self._plan_smaller(what):
            raise NothingFits(self._nothing_left(what, peak, step))

    def _plan_smaller(self, why: str) -> bool:
        found = smaller(self.plan, self._controls)
        if found is None:
            return False
        self.plan, done = found
        self._changes.append(f"{why}: from then on with {done}")
        log.warning(self._changes[-1])
        return True

    def _nothing_left(self, what: str, peak: int, step: int = PROBE) -> str:
        config = self._config
        return (
            f"{what}, and there is no way left to make do with less. The smallest plan that was tried: {self.plan}; at "
            f"most {size_text(peak)} were in use. {self._kept(step)}A new run with a lower lora_rank (it is "
            f"{config.lora_rank}) or a lower resolution (it is {config.resolution}; with allow_lower_resolution it "
            f"falls by itself, to {LEAST} at least) would need less. {self._holder()}".rstrip()
        )

    @staticmethod
    def _kept(step: int) -> str:
        return "What was trained is kept, and queued again with more memory it goes on. " if step > 1 else ""

    def _holder(self) -> str:
        holder = largest_holder(self._device)
        return f"Another program that holds memory is {holder}; closing it makes room." if holder else ""

    def state(self) -> dict[str, Any]:
        """What `restore` needs, of plain values."""
        return {
            "plan": (self.plan.micro_batch, self.plan.checkpointing, self.plan.offloaded),
            "changes": list(self._changes),
            "measured": self._measured,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Cut steps as in a `state`, so that they give the same numbers. The adapters are attached."""
        micro_batch, checkpointing, offloaded = state["plan"]
        checkpointing = checkpointing or self.plan.checkpointing
        self._controls.set_checkpointing(checkpointing)
        offloaded = sum(self._controls.offload_more() for _ in range(offloaded))
        self.plan = MemoryPlan(min(micro_batch, self.plan.micro_batch), checkpointing, offloaded)
        self._changes, self._measured = list(state["changes"]), state["measured"]

    def lines(self) -> list[str]:
        """The plan, beside it what was measured, and how it changed, for the report."""
        plan, config = self.plan, self._config
        in_all, on_device = self._controls.weights_size()
        place = f"on {self._device.type}"
        if on_device < in_all:
            place += f", {size_text(in_all - on_device)} of it in the computer's own memory"
        lines = [
            f"Memory: {plan.micro_batch} at a time in batches of {config.batch_size}, gradient "
            f"checkpointing {'on' if plan.checkpointing else 'off'}; the base model ({size_text(in_all)}) {place}"
        ]
        if self._expected is not None:
            expected = self._expected
            whole = expected.seconds * config.max_train_steps
            lines.append(
                f"  expected: at most {size_text(expected.peak)} of {size_text(expected.limit)}, "
                f"{expected.seconds:.2g} s a step, {_duration(whole)} in all"
            )
        if self._seconds:
            # The usual step: a few are slowed down by other programs, or by what is done for the first time.
            usual = statistics.median(self._seconds)
            lines.append(f"  measured: at most {size_text(self._measured)}, {usual:.2g} s a step")
        return lines + [f"  {change}" for change in self._changes]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
