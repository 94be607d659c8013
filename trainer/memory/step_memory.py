"""Fitting of steps into memory: one is measured before the first step, and out-of-memory errors make them smaller."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from ..config import ResolvedConfig
from ..data.batch_sampler import BatchSampler
from ..distributed.processes import current
from ..errors import CrucibleError, Kind
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
"""The share of the free main memory (RAM) that a plan may use; other programs need some too."""

PROBE = 0
"""The number of the trial step that is measured before step 1."""


class NothingFits(CrucibleError):
    """Raised after an out-of-memory error (OOM) if there is no plan left that needs less memory."""

    kind: Kind = "memory"


@dataclass(frozen=True)
class Expected:
    """The expected cost of a step on the largest examples.

    Attributes:
        peak: the most memory in use, in bytes.
        limit: the most memory that may be used, in bytes.
        seconds: the mean duration of a step.
    """

    peak: int
    limit: int
    seconds: float


class StepMemory:
    """Plans how steps are computed so that they fit into memory, and makes the plan smaller after out-of-memory errors.

    Args:
        base_model: the base model to train on.
        examples: the examples that the run trains on.
        batches: the batches that the examples are trained in.
        config: the settings of the run.

    Attributes:
        plan: the current plan. The effective batch size never changes.
    """

    def __init__(
        self, base_model: BaseModel, examples: Sequence[CachedExample], batches: BatchSampler, config: ResolvedConfig
    ) -> None:
        self._losses, self._controls = base_model.losses, base_model.memory
        self._examples, self._config = examples, config
        self._rows_per_step = len(examples) / batches.steps_per_epoch
        per_process = -(-config.batch_size * config.gradient_accumulation_steps // current().count)
        self._asked = min(largest_number_of_rows(examples, config.batch_size), per_process)
        self.plan = MemoryPlan(self._asked, config.gradient_checkpointing)
        self._changes: list[str] = []
        self._expected: Expected | None = None
        self._measured = 0
        self._seconds: list[float] = []

    @contextmanager
    def watched(self, stepper: OptimizerStepper) -> Iterator[None]:
        """Measure memory inside the context. The adapters must be attached.

        Args:
            stepper: the trained weights and their optimizer.
        """
        self._stepper = stepper
        self._device = stepper.device
        self._limit = self._most_allowed()
        self._controls.make_room(None, self._limit)
        with PeakMeter(self._device) as self._meter:
            yield

    def _most_allowed(self) -> int | None:
        """Return the most bytes that training may use by the settings; None if only the device limits it.

        Raises:
            CrucibleError: what is to be left free is more than there is.
        """
        limit, reserved = self._config.memory_limit, self._config.reserved_memory
        if not reserved:
            return limit
        available = self._controls.available(self._device)
        if available <= reserved:
            raise CrucibleError(
                f"reserve_memory is {self._config.reserve_memory:g} GB, but only {size_text(available)} are there for "
                f"training on {self._device.type}, so that nothing would be left to train with. Lower it, or close "
                "other programs.",
                "memory",
            )
        left = available - reserved
        if self._device.type != "cuda":
            left = min(left, int(HOST_SHARE * available))
        return left if limit is None else min(left, limit)

    def micro_batches(self, batches: Sequence[Sequence[int]]) -> list[list[int]]:
        """Begin a step, and return its batches split as the plan says, with the same rows in the same order."""
        self._meter.reset()
        return self.plan.micro_batches(batches)

    def peak_gb(self) -> float:
        """Return the most memory in use since the step began, in GB of 10^9 bytes."""
        return self._meter.peak / 1e9

    def after_step(self, report: StepReport) -> None:
        """Record the memory and the time that a step took."""
        self._measured = max(self._measured, int(report.memory_gb * 1e9))
        self._seconds.append(report.seconds)

    def probe(self) -> None:
        """Measure a forward and backward pass on the largest examples, and make the plan smaller until it fits.

        This does not affect training: there is no optimizer step, and random numbers depend on the step alone.

        Raises:
            NothingFits: even the smallest plan does not fit.
        """
        while True:
            try:
                attempts = self.attempts(self._measured_together, PROBE)
                expected = self._controls.first_that_fits_together(attempts).required()
            finally:
                self._stepper.forget_gradients()
            if expected.peak <= expected.limit or self._config.memory == "fixed":
                break
            needed = f"a step would take {size_text(expected.peak)} of {size_text(expected.limit)}"
            if not self._plan_smaller(f"Measured before the first step, {needed}"):
                if self._limit is not None:
                    raise NothingFits(self._nothing_left(needed[0].upper() + needed[1:], expected.peak))
                log.warning("Memory may not be enough: %s. %s", needed, self._holder())
                break
        self._expected = expected
        for line in self.lines():
            log.info(line)

    def attempts(self, action: Callable[[], Result], step: int) -> Iterator[Attempt[Result]]:
        """Yield attempts at a step, each with a smaller plan after an out-of-memory error (OOM) in the one before.

        Args:
            action: a function that computes the step according to the plan. If it runs out of memory, the gradients
                that it leaves are discarded.
            step: the number of the step, counted from 1.

        Raises:
            NothingFits: there is no smaller plan.
            CrucibleError: `memory` is `fixed`, so the plan may not change.
        """
        yield Attempt(str(self.plan), action)
        while True:
            self._handle_oom(step)
            yield Attempt(str(self.plan), action)

    def _measured_together(self) -> Expected:
        """Compute the trial step in every process, and return what it costs where that comes closest to the limit."""
        found = current().together(lambda: asdict(self._measure()), self._controls.is_out_of_memory)
        return max((Expected(**one) for one in found), key=lambda one: one.peak - one.limit)

    def _measure(self) -> Expected:
        """Compute the trial step with the current plan, and return what a step is expected to cost."""
        rows = largest_batch(self._examples, self.plan.micro_batch)
        limit = self._limit
        # The first pass also loads the model and initialises the device, so it is not counted.
        self._meter.reset()
        self._pass(rows[:1])
        peak, now = self._meter.peak, self._meter.now
        available = limit or self._controls.available(self._device)
        if self._device.type == "cuda":
            expected = 0
        else:
            # The system kills a process that uses too much main memory, so this must not be found out by trying.
            available = limit or int(HOST_SHARE * available)
            expected = now + (peak - now) * len(rows)
        to_come = self._optimizer_state()
        too_much = expected + to_come > available and len(rows) > 1 and self._config.memory != "fixed"
        if current().passes.largest(int(too_much)):
            return Expected(expected + to_come, available, 0.0)
        peak, now, seconds = self._timed_pass(rows)
        self._controls.make_room(peak - now + to_come, limit)
        in_all, on_device = self._controls.weights_size()
        if on_device < in_all:  # the measurement may have changed which part of the model is on the device
            self._pass(rows[:1])
            peak, now, seconds = self._timed_pass(rows)
        mean = sum(sample.size for sample in self._examples) / len(self._examples)
        share = self._rows_per_step * mean / sum(sample.size for sample in rows)
        return Expected(peak + to_come, available, seconds * share)

    def _timed_pass(self, rows: Sequence[CachedExample]) -> tuple[int, int, float]:
        """Compute a pass; return its peak memory, the memory before it (both in bytes), and its seconds."""
        self._meter.reset()
        now, started = self._meter.now, time.perf_counter()
        self._pass(rows)
        return self._meter.peak, now, time.perf_counter() - started

    def _pass(self, rows: Sequence[CachedExample]) -> None:
        losses = self._losses(rows, range(len(rows)))
        self._stepper.backward(losses.values.sum())
        losses.values.detach().cpu()  # waits for the device

    def _optimizer_state(self) -> int:
        """Return the bytes that the optimizer will still allocate for its state."""
        if self._stepper.optimizer.state:
            return 0
        numbers = sum(weight.numel() for weight in self._stepper.parameters)
        return int(numbers * STATE_BYTES[self._config.optimizer])

    def _handle_oom(self, step: int) -> None:
        """Switch to a smaller plan after an out-of-memory error (OOM) in a step."""
        self._stepper.forget_gradients()
        peak = self._meter.peak
        self._measured = max(self._measured, peak)
        name = "The trial step before the first step" if step == PROBE else f"Step {step}"
        what = f"{name} ran out of memory at {size_text(peak)}"
        if self._config.memory == "fixed":
            raise CrucibleError(
                f"{what}. Because memory is fixed, using less memory was not tried (the plan was {self.plan}). "
                f"{self._kept(step)}Set memory to auto, lower batch_size or {self._length}, or turn on "
                f"gradient_checkpointing. {self._holder()}".rstrip(),
                "memory",
            )
        if not self._plan_smaller(what):
            raise NothingFits(self._nothing_left(what, peak, step))

    def _plan_smaller(self, why: str) -> bool:
        found = smaller(self.plan, self._controls)
        # All go on with a smaller plan, or none.
        if not all(current().gather(found is not None)) or found is None:
            return False
        self.plan, done = found
        self._changes.append(f"{why}: continued with {done}")
        log.warning(self._changes[-1])
        return True

    def _nothing_left(self, what: str, peak: int, step: int = PROBE) -> str:
        config = self._config
        lower = f"lower {self._length}"
        if config.resolution is not None:
            lower += f" (it is {config.resolution}; allow_lower_resolution lowers it automatically, down to {LEAST})"
        reserved = config.reserve_memory
        less = f"; so does a lower reserve_memory (it is {reserved:g})" if reserved else ""
        return (
            f"{what}, and nothing is left to try that needs less. The smallest plan that was tried: {self.plan}; "
            f"up to {size_text(peak)} were in use. {self._kept(step)}A new run with a lower lora_rank (it is "
            f"{config.lora_rank}) or a {lower} needs less{less}. {self._holder()}".rstrip()
        )

    @property
    def _length(self) -> str:
        """The setting that makes each example smaller."""
        return "max_seq_length" if self._config.resolution is None else "resolution"

    @staticmethod
    def _kept(step: int) -> str:
        return "The training so far is saved; start it again with more free memory to resume. " if step > 1 else ""

    def _holder(self) -> str:
        holder = largest_holder(self._device)
        return f"Another program is using memory: {holder}. Closing it would free that." if holder else ""

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as plain values."""
        return {
            "plan": (self.plan.micro_batch, self.plan.checkpointing, self.plan.offloaded),
            "asked": self._asked,
            "changes": list(self._changes),
            "measured": self._measured,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Split steps as in a `state`, so that their results are the same. The adapters must be attached.

        With another number of processes, a plan that was as large as a step allowed stays that.
        """
        micro_batch, checkpointing, offloaded = state["plan"]
        checkpointing = checkpointing or self.plan.checkpointing
        self._controls.set_checkpointing(checkpointing)
        offloaded = sum(self._controls.offload_more() for _ in range(offloaded))
        if micro_batch < state["asked"]:
            self.plan = replace(self.plan, micro_batch=min(micro_batch, self.plan.micro_batch))
        self.plan = replace(self.plan, checkpointing=checkpointing, offloaded=offloaded)
        self._changes, self._measured = list(state["changes"]), state["measured"]

    def lines(self) -> list[str]:
        """Return the report lines about the plan, its changes, and the expected and measured memory and time."""
        plan, config = self.plan, self._config
        in_all, on_device = self._controls.weights_size()
        place = f"on {self._device.type}"
        if current().joint:
            place = f"split over {current().count} processes, of which each holds {size_text(on_device)}"
        elif on_device < in_all:
            place += f", {size_text(in_all - on_device)} of it in main memory (RAM)"
        lines = [
            f"Memory: {plan.micro_batch} at a time in batches of {config.batch_size}, gradient "
            f"checkpointing {'on' if plan.checkpointing else 'off'}; the base model ({size_text(in_all)}) {place}"
        ]
        if self._expected is not None:
            expected = self._expected
            whole = expected.seconds * config.max_train_steps
            reserved = f" (reserve_memory leaves {config.reserve_memory:g} GB free)" if config.reserve_memory else ""
            lines.append(
                f"  expected: at most {size_text(expected.peak)} of {size_text(expected.limit)}{reserved}, "
                f"{expected.seconds:.2g} s per step, {_duration(whole)} in total"
            )
        if self._seconds:
            # The median, because some steps are slowed down by other programs or by one-time setup.
            usual = statistics.median(self._seconds)
            lines.append(f"  measured: at most {size_text(self._measured)}, {usual:.2g} s per step")
        return lines + [f"  {change}" for change in self._changes]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
