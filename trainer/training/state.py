"""The state of a run: everything that the next step depends on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ..evaluation.evaluator import Evaluator
from ..memory.step_memory import StepMemory
from ..monitoring.anomalies import AnomalyDetector
from ..monitoring.hard_examples import HardExamples
from ..optim.stepper import OptimizerStepper
from .previews import PreviewSamples

Snapshot = dict[str, Any]
"""The state of a run as a checkpoint stores it: nested lists, tuples and dicts of CPU tensors and plain values."""


@dataclass
class TrainingState:
    """The state of a run. Each part that is not a plain value can save and restore itself.

    Attributes:
        stepper: the trained weights with their optimizer and schedule.
        evaluator: the rounds of validation and the best weights.
        hard_examples: the errors of each example.
        anomalies: the usual losses and gradients, and the anomalies so far.
        memory: the plan that splits steps so that they fit into memory.
        previews: the samples drawn so far.
        resolution: the resolution that images are trained at, in pixels; None for datasets without images.
        losses: the loss of each step.
        step: the number of steps done.
        seconds_before: the training time before `started`, in seconds.
        started: the time at which training began or was resumed, by the monotonic clock.
    """

    stepper: OptimizerStepper
    evaluator: Evaluator
    hard_examples: HardExamples
    anomalies: AnomalyDetector
    memory: StepMemory
    previews: PreviewSamples
    resolution: int | None
    losses: list[float]
    step: int = 0
    seconds_before: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """The training time in seconds, including the time before the run was resumed."""
        return self.seconds_before + time.monotonic() - self.started

    def snapshot(self) -> Snapshot:
        """Return what `restore` needs; later steps do not change it."""
        return {
            "step": self.step,
            "resolution": self.resolution,
            "losses": list(self.losses),
            "seconds": self.seconds,
            "previews": self.previews.state(),
            "stepper": self.stepper.state(),
            "evaluator": self.evaluator.state(),
            "hard_examples": self.hard_examples.state(),
            "anomalies": self.anomalies.state(),
            "memory": self.memory.state(),
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of this run, or of an earlier run that it may resume.

        The memory plan is not restored, because a run that goes back after an out-of-memory error (OOM) must not return
        to the plan that was too large. `memory.restore` restores it.
        """
        self.step = snapshot["step"]
        self.losses[:] = snapshot["losses"]
        self.seconds_before, self.started = snapshot["seconds"], time.monotonic()
        self.previews.restore(snapshot["previews"])
        self.stepper.restore(snapshot["stepper"])
        self.evaluator.restore(snapshot["evaluator"], comparable=snapshot["resolution"] == self.resolution)
        self.hard_examples.restore(snapshot["hard_examples"])
        self.anomalies.restore(snapshot["anomalies"])
        self.stepper.slow_down(self.anomalies.slowdown)

    def go_back(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot from this process, but keep the record of NaN steps and the training time."""
        anomalies = snapshot["anomalies"] | {"broken": self.anomalies.state()["broken"]}
        self.restore(snapshot | {"anomalies": anomalies, "seconds": self.seconds})
