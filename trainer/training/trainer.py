"""The part of a run that happens in the base model's session."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..adapters.adapters import Adapters, AdapterSpec
from ..config import ResolvedConfig, TrainingConfig
from ..data.batch_sampler import BatchSampler
from ..data.cache import TensorCache
from ..errors import CrucibleError
from ..evaluation.early_stopping import StoppedEarly
from ..evaluation.evaluator import Evaluator
from ..evaluation.validation import Round
from ..evaluation.verdict import Verdict
from ..events.callbacks import Callbacks
from ..events.step import StepReport
from ..formats.lora_model import LoraModel
from ..hardware.slow_step_causes import likely_cause
from ..memory.retry import again, retried
from ..memory.step_memory import StepMemory
from ..memory.storage import require_room
from ..models.base import BaseModel, Precision
from ..models.initial_lora import DECIDED_BY_FILE, InitialLora
from ..monitoring.anomalies import AnomalyDetector
from ..monitoring.loss_swings import find_swing
from ..monitoring.step_time import Pace
from ..optim.optimizers import parameter_groups
from ..optim.stepper import OptimizerStepper
from ..planning.plan import Plan
from ..runs.best_effort import BestEffort
from ..runs.checkpoint import Checkpoint, Checkpoints
from ..runs.log import RunLog, read_log
from ..runs.lora_writer import LoraSaver
from ..runs.paths import RunFiles
from ..runs.plots import can_plot, save_training_plot
from ..runs.report import SavedLora, cache_text, training_report
from .loop import train
from .previews import PreviewSamples

log = logging.getLogger(__name__)


@dataclass
class RunResult:
    """What a run made: `losses` has one value per step; `samples` holds (prompts, height, width, 3) in 0..1 for each
    round: before the training, after each interval, at the end. `rounds` are those of the validation."""

    files: RunFiles
    lora: LoraModel = field(default_factory=lambda: LoraModel({}))
    losses: list[float] = field(default_factory=list)
    samples: list[Tensor] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    verdict: Verdict | None = None
    report: str = ""


class Training:
    """Prepares and trains a LoRA, and saves everything of it.

    Args:
        identity: of the base model.
        asked: the config before anything was chosen.
        continued: what to start from; None for nothing.

    Attributes:
        good: the last state that the run can go back to, once training has begun.
    """

    def __init__(
        self,
        base_model: BaseModel,
        identity: str,
        plan: Plan,
        asked: TrainingConfig,
        precision: Precision,
        callbacks: Callbacks,
        result: RunResult,
        continued: InitialLora | None,
    ) -> None:
        config, dataset = plan.resolved.values, plan.dataset
        self.base_model = base_model
        self.dataset = dataset
        self.notes = plan.notes
        self.extras = BestEffort()
        self.precision = precision
        self.callbacks = callbacks
        self.result = result
        self.reasons = plan.resolved.reasons | base_model.prepare_losses(config)
        self.start_layers = {} if continued is None else continued.layers

        cache = TensorCache(result.files.cache, limit=int(config.cache_size_gb * 1e9))
        self.inputs = again(
            base_model,
            lambda: base_model.cache_inputs(
                plan.samples, cache, config.caption_dropout_rate, callbacks.preparing, config.train_text_encoder
            ),
        )
        groups = [sample.group for sample in self.inputs]
        self.order = BatchSampler(groups, config.batch_size, config.gradient_accumulation_steps, config.seed)
        if asked.epochs:
            config = config.model_copy(update={"max_train_steps": asked.epochs * self.order.steps_per_epoch})
        self.config: ResolvedConfig = config
        files = result.files
        self.samples = PreviewSamples(base_model, dataset, config, files, self.extras)
        sampling = self.samples.sampling
        self.guard = Evaluator(base_model, dataset, config, sampling)
        again(base_model, lambda: self.guard.encode(cache, callbacks.preparing))
        again(base_model, lambda: base_model.prepare_sampling([sampling, *self.guard.samplings.values()]))
        base_model.release_encoders()
        self.cache_text = cache_text(cache)
        written = config.model_copy(update={"train_data_dir": dataset.source})
        if continued is not None:
            self.reasons.pop("target_modules", None)
            # Written as numbers, they would have the file resized.
            written = written.model_copy(update={name: getattr(asked, name) for name in DECIDED_BY_FILE})
        with self.extras.writing("The config"):
            files.write_config(written, dataset.not_in_folder)
        self.checkpoints = Checkpoints(files.checkpoints, config.checkpoints_kept)
        self.memory = StepMemory(base_model, self.inputs, self.order, config)
        self.saver = LoraSaver(
            base_model, identity, dataset, config, self.order, files, self.guard, precision, continued
        )

    @property
    def step(self) -> int:
        """How many steps are done."""
        return len(self.result.losses)

    def train(self, start: dict[str, Any] | None) -> None:
        spec = AdapterSpec.of(self.config, self.start_layers)
        with self.base_model.attached(spec, self.config.gradient_checkpointing) as adapters:
            self._begin(adapters, start)
            self.good = self._state()
            self.log = RunLog(self.result.files.folder, self.step)
            try:
                self._do_steps()
            except StoppedEarly:
                pass
            except BaseException as stop:
                if self.optimization.mid_step or not self.optimization.is_finite():
                    self._go_back()
                if self.step:
                    self._keep(stop)
                raise
            finally:
                with self.extras.writing("The log for TensorBoard"):
                    self.log.close()
                if self.step and can_plot():
                    with self.extras.writing("The plot of the losses"):
                        save_training_plot(self.log.path, self.result.files.folder / "loss.png", self.guard.rounds)
            self._finish()

    def _begin(self, adapters: Adapters, start: dict[str, Any] | None) -> None:
        """Make everything that trains these adapters, as it is before the first step, or as it was in a state."""
        config = self.config
        self.adapters = adapters
        adapters.initialise(config.seed)
        adapters.load(self.start_layers)
        groups = parameter_groups(adapters, config)
        scaler = torch.amp.GradScaler(adapters.device.type, enabled=self.precision.compute is torch.float16)
        self.optimization = OptimizerStepper(groups, config, scaler)
        self.guard.start(adapters, self.optimization.weights_for_use)
        self.saver.start(adapters, self.optimization.optimizer_name)
        self.trouble = AnomalyDetector(config, self.precision.name, lambda: self.optimization.loss_scale)
        self.pace = Pace(lambda: likely_cause(adapters.device))
        self.trained_seconds, self.training_started = 0.0, time.monotonic()
        self.room = require_room(self.result.files.folder, adapters.size, config)
        for warning in self.room.warnings:
            self.extras.note(warning)
        if start is not None:
            self._restore(start)
            self._require_numbers("that this run was to go on from")
            # Not by `_restore`: whoever goes back for lack of memory must not get back the plan that lacked it.
            self.memory.restore(start["memory"])

    def _do_steps(self) -> None:
        with self.memory.watched(self.optimization):
            if self.step < self.config.max_train_steps:
                self.memory.probe()
            self._do_what_is_due()
            train(
                self.guard.losses,
                self.optimization,
                self.inputs,
                self.order,
                self.config,
                self.memory,
                self.trouble,
                first_step=self.step,
                on_step=self._after_step,
                go_back=self._go_back,
            )
        self._require_numbers("that it ended with")

    def _finish(self) -> None:
        """Save everything of a run that came to its end, and show what it learned."""
        kept = self.config.checkpoints_kept
        if kept:
            self._write_checkpoint()
            self._wait_for_checkpoint()  # before the LoRA takes the last room on a disk that is nearly full
        with self.optimization.weights_for_use():
            saved = self._save("finished early" if self.guard.stopped_early else "finished")
            self._write_report(saved)
            self.base_model.verify(self.result.files.lora, len(self.adapters))
            self._sample()
            self._measure_pictures()
        self._write_report(saved)
        self.checkpoints.keep_only(min(kept, 1))

    def _keep(self, stop: BaseException) -> None:
        """Save everything of a run that `stop` ends."""
        # Cancel and Ctrl-C, unlike errors, are no Exceptions.
        is_error = isinstance(stop, Exception)
        self._write_checkpoint()
        self._wait_for_checkpoint()
        try:
            with self.optimization.weights_for_use():
                self._write_report(self._save("stopped by an error" if is_error else "cancelled"), complete=False)
        except CrucibleError as error:
            if not is_error:
                raise
            log.error("%s", error)  # the user is shown what stopped the run
        else:
            log.warning(self.result.report)

    def _after_step(self, report: StepReport) -> None:
        self.memory.after_step(report)
        self.result.losses.append(report.loss)
        with self.extras.writing("The log"):
            self.log.write(report)
        with self.extras.writing("The log for TensorBoard"):
            self.log.write_curves(report)
        self.guard.after_step(report)
        self.pace.add(report, self.memory.plan)
        self.callbacks.stepped(report, self.config.max_train_steps)
        self._do_what_is_due()

    def _do_what_is_due(self) -> None:
        """Measure, sample and write a checkpoint after the current step, and before the first. What a run had done
        when it stopped here is not done again."""
        config, step = self.config, self.step
        self.guard.validate_when_due()
        if (
            step % config.sample_every_n_steps == 0
            and step < config.max_train_steps
            and not self.samples.are_drawn(step)
        ):
            with self.optimization.weights_for_use():
                self._sample()
        if step and self.checkpoints.is_due(step, config.save_steps):
            self._write_checkpoint()

    def _sample(self) -> None:
        picture = self.samples.draw(self.adapters, self.step)
        if picture is not None:
            self.callbacks.sampled(self.step, self.config.max_train_steps, picture)

    def _measure_pictures(self) -> None:
        seconds = self.samples.seconds_per_sampling_step
        pictures = None if seconds is None else self.guard.measure_pictures(self.training_seconds, seconds)
        if pictures is not None:
            with self.extras.writing("The measured pictures"):
                self.result.files.write_picture("measures.png", pictures)

    def _write_checkpoint(self) -> None:
        """Of the current state, unless there is one. A disk, or memory, that has no room for it does not end the
        run."""
        if self.checkpoints.last_step == self.step or self.optimization.mid_step:
            return
        if not self.optimization.is_finite():
            return  # the next step will find it out, and needs a good state to go back to
        checkpoint = retried(self.base_model, self._checkpoint)
        if checkpoint is None:
            self.extras.note(f"Memory did not suffice for a checkpoint after step {self.step}, so it was left out.")
            return
        self.good = checkpoint.state
        self._wait_for_checkpoint()
        self.checkpoints.write(checkpoint)

    def _checkpoint(self) -> Checkpoint:
        with self.optimization.weights_for_use():
            loras = self.saver.loras(self.step)
        return Checkpoint(self.step, self._state(), loras)

    def _wait_for_checkpoint(self) -> None:
        try:
            self.checkpoints.wait()
        except CrucibleError as error:
            self.extras.note(str(error))

    def _state(self) -> dict[str, Any]:
        """What `_restore` needs. It does not change any more."""
        return {
            "resolution": self.config.resolution,
            "losses": list(self.result.losses),
            "seconds": self.training_seconds,
            "samples": self.samples.state(),
            "optimization": self.optimization.state(),
            "guard": self.guard.state(),
            "trouble": self.trouble.state(),
            "memory": self.memory.state(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of this run, or of one on the same model and images with settings that allow it."""
        self.result.losses[:] = state["losses"]
        self.checkpoints.last_step = self.step
        self.trained_seconds, self.training_started = state["seconds"], time.monotonic()
        self.samples.restore(state["samples"])
        self.optimization.restore(state["optimization"])
        self.guard.restore(state["guard"], comparable=state["resolution"] == self.config.resolution)
        self.trouble.restore(state["trouble"])
        self.optimization.slow_down(self.trouble.slowdown)

    def _require_numbers(self, whose: str) -> None:
        """
        Raises:
            CrucibleError: the weights are none.
        """
        if not self.optimization.is_finite():
            raise CrucibleError(
                f"The state after step {self.step} {whose} has weights that are no numbers, so the LoRA would destroy "
                f"every picture. Set learning_rate lower (it is {self.config.learning_rate:g}), or retrain to start "
                "anew."
            )

    def _go_back(self) -> int:
        """To the last good state, with learning rates as low as the trouble so far makes them. How many steps are done
        there.

        Raises:
            CrucibleError: that has happened too often.
        """
        trouble = self.good["trouble"] | {"broken": self.trouble.state()["broken"]}
        self._restore(self.good | {"trouble": trouble, "seconds": self.training_seconds})
        self.log.close()
        self.log = RunLog(self.result.files.folder, self.step)
        self.trouble.raise_when_hopeless(self.step, self.result.files.lora)
        log.warning("Went back to the state after step %d.", self.step)
        return self.step

    @property
    def training_seconds(self) -> float:
        return self.trained_seconds + time.monotonic() - self.training_started

    def _save(self, outcome: str) -> SavedLora:
        saved, self.result.lora = self.saver.save(outcome, self.step)
        return saved

    def _write_report(self, saved: SavedLora, complete: bool = True) -> None:
        self.guard.swing = find_swing([line["errors"] for line in read_log(self.log.path) if not line["skipped"]])
        self.result.samples = self.samples.rounds
        self.result.rounds, self.result.verdict = self.guard.rounds, self.guard.verdict(complete)
        self.result.report = training_report(
            saved,
            self.base_model,
            self.dataset,
            self.config,
            precision=self.precision.name,
            losses=self.result.losses,
            seconds=self.training_seconds,
            cache_text=self.cache_text,
            watched=[
                *self.memory.lines(),
                self.room.line,
                *self.trouble.lines(),
                *self.pace.lines(),
                *self.guard.lines(complete),
            ],
            reasons=self.reasons,
            notes=(*self.notes, *self.extras.notes),
        )
        with self.extras.writing("The report"):
            self.result.files.write_report(self.result.report)
