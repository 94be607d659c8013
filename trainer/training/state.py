"""The state of a run: everything that its next step depends on."""

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
"""A state as a checkpoint holds it: nested lists, tuples and dictionaries of CPU tensors and plain values."""


@dataclass
class TrainingState:
    """The state of a run. Each part but the plain values knows how to write and restore itself.

    Attributes:
        stepper: the weights with their optimizer and schedule.
        evaluator: the rounds of validation and the best weights.
        hard_examples: the errors of each example.
        anomalies: what is usual for a loss and a gradient, and the trouble so far.
        memory: how steps are cut to fit into memory.
        previews: the samples drawn so far.
        resolution: what images are trained at, in pixels; None without images.
        losses: the loss of each step.
        step: how many steps are done.
        seconds_before: how long was trained before `started`.
        started: when training began or was continued, by the monotonic clock.
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
        """How long the run has trained, over all its starts."""
        return self.seconds_before + time.monotonic() - self.started

    def snapshot(self) -> Snapshot:
        """Return what `restore` needs. It does not change any more."""
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
        """Continue from a snapshot of this run, or of one on the same model and examples with settings that allow it.

        The memory plan stays as it is: whoever goes back because memory ran out must not get back the plan that was too
        large. `memory.restore` restores it.
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
        """Return to a snapshot of this start of the run, knowing what went wrong since and how long it took."""
        anomalies = snapshot["anomalies"] | {"broken": self.anomalies.state()["broken"]}
        self.restore(snapshot | {"anomalies": anomalies, "seconds": self.seconds})
