"""The training of a prepared run, whose results are saved whatever stops it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..adapters.adapters import Adapters
from ..adapters.spec import AdapterSpec
from ..errors import CrucibleError
from ..evaluation.early_stopping import StoppedEarly
from ..evaluation.evaluator import Evaluator
from ..events.callbacks import Callbacks
from ..events.start import RunStart
from ..events.step import StepReport
from ..hardware.out_of_memory import twice
from ..hardware.slow_step_causes import likely_cause
from ..memory.step_memory import StepMemory
from ..models.examples import CachedExample, RowLosses
from ..monitoring.anomalies import AnomalyDetector
from ..monitoring.hard_examples import HardExamples
from ..monitoring.step_time import Pace
from ..optim.engine import Engine
from ..optim.optimizers import parameter_groups
from ..optim.stepper import OptimizerStepper
from ..runs.best_effort import BestEffort
from ..runs.checkpoint import Checkpoint, Checkpoints
from ..runs.log import RunLog
from ..runs.lora_writer import LoraWriter
from ..runs.paths import RunFiles
from ..runs.plots import can_plot, save_training_plot
from ..runs.trackers import Trackers
from .finish import Finish
from .loop import TrainingLoop
from .prepare import PreparedRun
from .previews import PreviewSamples
from .result import RunResult
from .state import Snapshot, TrainingState

log = logging.getLogger(__name__)


class Trainer:
    """Trains a LoRA, and saves it with its checkpoints, samples, log and report.

    Args:
        run: the prepared run.
        engine: the engine that computes gradients and steps.
        files: the files of the run.
        callbacks: the functions to call while the run works.
        result: the result object, which is filled in.

    Attributes:
        state: the state of the run; set once training has begun.
        good: the last state that the run can go back to; set once training has begun, and empty in processes that do
            not write the files of the run.
    """

    state: TrainingState
    good: Snapshot
    _log: RunLog | None = None

    def __init__(
        self, run: PreparedRun, engine: Engine, files: RunFiles, callbacks: Callbacks, result: RunResult
    ) -> None:
        self._run, self._engine, self._files = run, engine, files
        self._callbacks, self._result = callbacks, result
        self._base_model, self._config = run.base_model, run.config
        self._best_effort = BestEffort()
        self._checkpoints = Checkpoints(files.checkpoints, run.config.checkpoints_kept)

    def train(self, start: Snapshot | None) -> None:
        """Train to the end, from the first step or from a snapshot, and fill in the result.

        Whatever stops the training after its first step, a checkpoint and the LoRA so far are saved before the
        exception is passed on.
        """
        spec = AdapterSpec.of(self._config, {} if self._run.initial is None else self._run.initial.layers)
        with self._base_model.attached(spec, self._config.gradient_checkpointing) as adapters:
            self._begin(adapters, start)
            try:
                self._do_steps_and_finish()
            finally:
                self._trackers.close()

    def _do_steps_and_finish(self) -> None:
        try:
            self._do_steps()
        except StoppedEarly:
            pass
        except BaseException as stop:  # ComfyUI's Cancel and Ctrl-C are not Exceptions
            if self._engine.writes:
                self._keep(stop)
            raise
        finally:
            self._plot_losses()
        self._finish_training()

    def _keep(self, stop: BaseException) -> None:
        """Save the state and the LoRA of a run that is being stopped, without the help of other processes."""
        if self.state.stepper.mid_step or not self.state.stepper.is_finite():
            self._restore(self.good)
        if self.state.step:
            self._write_checkpoint()
            self._wait_for_checkpoint()
            self._finish.keep(self.state, stop)

    def _begin(self, adapters: Adapters, start: Snapshot | None) -> None:
        """Set up everything that trains these adapters, in its initial state or restored from a snapshot."""
        run, config = self._run, self._config
        self._adapters = adapters
        adapters.initialise(config.seed)
        adapters.load({} if run.initial is None else run.initial.layers)
        stepper = OptimizerStepper(parameter_groups(adapters, config), config, self._engine)
        self.state = TrainingState(
            stepper=stepper,
            evaluator=Evaluator(run.validation, config, self._base_model.memory),
            hard_examples=HardExamples(run.dataset.training_names),
            anomalies=AnomalyDetector(
                config, self._engine.precision, lambda: self._engine.loss_scale, run.dataset.unit
            ),
            memory=StepMemory(self._base_model, run.examples, run.batches, config),
            previews=PreviewSamples(self._base_model, run.sampling, self._files, self._best_effort),
            resolution=config.resolution,
            losses=self._result.losses,
        )
        state = self.state
        state.evaluator.start(adapters, stepper.weights_for_use)
        self._writer = LoraWriter(
            adapters,
            self._base_model,
            run.identity,
            run.dataset,
            config,
            run.batches,
            self._files,
            state.evaluator,
            self._engine.precision,
            stepper.optimizer_name,
            run.initial,
        )
        self._step_time = Pace(lambda: likely_cause(adapters.device))
        for warning in run.room.warnings:
            self._best_effort.note(warning)
        self._finish = Finish(
            run,
            self._engine,
            self._files,
            self._best_effort,
            self._writer,
            self._step_time,
            self._result,
        )
        if self._engine.writes:
            with self._best_effort.writing("The config"):
                self._files.write_config(run.config_to_write, run.dataset.not_in_folder)
        if start is not None:
            state.restore(start)
            self._checkpoints.last_step = state.step
            self._require_finite("that this run was to be resumed from")
            state.memory.restore(start["memory"])
        self.good = state.snapshot() if self._engine.writes else {}
        self._open_log()
        self._trackers = Trackers(config, self._files, self._best_effort, state.step, self._engine.writes)

    def _do_steps(self) -> None:
        state = self.state
        with state.memory.watched(state.stepper):
            if state.step < self._config.max_train_steps:
                state.memory.probe()
            self._callbacks.planned(self._start())
            self._do_what_is_due()
            TrainingLoop(
                self._losses,
                state.stepper,
                self._run.examples,
                self._run.batches,
                self._config,
                state.memory,
                self._base_model.memory,
                state.anomalies,
                self._go_back,
                self._after_step,
            ).run(state.step)
        self._require_finite("that it ended with")

    def _start(self) -> RunStart:
        run, files = self._run, self._files
        return RunStart(
            name=files.name,
            folder=files.folder,
            lora=files.lora,
            step=self.state.step,
            steps=self._config.max_train_steps,
            settings=self._config.model_dump(mode="json"),
            reasons=run.reasons,
            memory=tuple(self.state.memory.lines()),
            notes=run.notes,
        )

    def _losses(self, rows: Sequence[CachedExample], seeds: Sequence[int]) -> RowLosses:
        losses = self._base_model.losses(rows, seeds)
        return self.state.hard_examples.weighted(losses, rows) if self._config.downweight_hard_images else losses

    def _after_step(self, report: StepReport) -> None:
        state = self.state
        state.step = report.step
        state.losses.append(report.loss)
        state.memory.after_step(report)
        if self._log is not None:
            with self._best_effort.writing("The log"):
                self._log.write(report)
        self._trackers.step(report)
        state.evaluator.after_step(report)
        state.hard_examples.add(report.rows)
        self._step_time.add(report, state.memory.plan)
        if self._checkpoints.is_written:
            self._wait_for_checkpoint()
        self._callbacks.stepped(report, self._config.max_train_steps)
        self._do_what_is_due()

    def _do_what_is_due(self) -> None:
        """Validate, draw samples and write a checkpoint after the current step, or before the first, if they are due.

        What a resumed run did before it stopped at this step is not repeated. Processes that write nothing go on to the
        next step meanwhile, and wait there.
        """
        config, state = self._config, self.state
        if (measured := state.evaluator.validate_when_due()) is not None:
            self._trackers.measured(measured.step, measured.error)
            self._callbacks.validated(measured.step, measured.error)
        if state.evaluator.stopped_early:
            raise StoppedEarly
        if (
            state.step % config.sample_every_n_steps == 0
            and state.step < config.max_train_steps
            and not self._samples_are_drawn()
        ):
            with state.stepper.weights_for_use():
                self._engine.processes.by_main(self._draw_samples)
        if self._engine.writes and state.step and self._checkpoints.is_due(state.step, config.save_steps):
            self._write_checkpoint()

    def _samples_are_drawn(self) -> bool:
        drawn, processes = self.state.previews.are_drawn(self.state.step), self._engine.processes
        return bool(processes.from_main(drawn)) if processes.joint else drawn

    def _draw_samples(self) -> None:
        samples = self.state.previews.draw(self._adapters, self.state.step)
        if samples is not None:
            self._trackers.samples(self.state.step, self.state.previews.rounds[-1], self._run.sampling.prompts)
            self._callbacks.sampled(self.state.step, self._config.max_train_steps, samples)

    def _finish_training(self) -> None:
        """Save the results of a run that reached its end, and draw the last samples."""
        self._engine.processes.by_main(self._save_and_show)

    def _save_and_show(self) -> None:
        state, kept = self.state, self._config.checkpoints_kept
        if kept:
            self._write_checkpoint()
        self._wait_for_checkpoint()  # before the LoRA fills a disk that is nearly full
        with state.stepper.weights_for_use():
            saved = self._finish.save(state, "finished early" if state.evaluator.stopped_early else "finished")
            self._base_model.verify(self._files.lora, len(self._adapters))
            self._draw_samples()
            self._finish.measure(state, self._adapters)
        self._finish.write_report(state, saved)
        self._checkpoints.keep_only(min(kept, 1))

    def _write_checkpoint(self) -> None:
        """Write a checkpoint of the current state unless there is one or its weights are NaN or infinite.

        A full disk or an out-of-memory error (OOM) does not end the run; the report notes it.
        """
        state = self.state
        if self._checkpoints.last_step == state.step or state.stepper.mid_step:
            return
        if not state.stepper.is_finite():
            return  # the next step will detect the NaN and needs a good state to go back to
        checkpoint = self._base_model.memory.first_that_fits(twice(self._checkpoint)).result
        if checkpoint is None:
            self._best_effort.note(
                f"There was not enough memory to write a checkpoint after step {state.step}, so it was skipped."
            )
            return
        self.good = checkpoint.state
        self._wait_for_checkpoint()
        self._checkpoints.write(checkpoint)

    def _checkpoint(self) -> Checkpoint:
        with self.state.stepper.weights_for_use():
            loras = self._writer.loras(self.state.step)
        return Checkpoint(self.state.step, self.state.snapshot(), loras)

    def _wait_for_checkpoint(self) -> None:
        try:
            written = self._checkpoints.wait()
        except CrucibleError as error:
            self._best_effort.note(str(error))
        else:
            if written is not None:
                self._callbacks.saved(*written)

    def _go_back(self) -> int:
        """Go back to the last good state after a NaN, or after an out-of-memory error in the middle of an update.

        Learning rates are lowered according to the number of NaN and infinite steps so far.

        Returns:
            The number of steps done in the good state.

        Raises:
            CrucibleError: the run has gone back too often.
        """
        self._restore(self._engine.processes.state_from_main(self.good))
        self.state.anomalies.raise_when_hopeless(self.state.step, self._files.lora)
        log.warning("Went back to the state after step %d.", self.state.step)
        return self.state.step

    def _restore(self, good: Snapshot) -> None:
        self.state.go_back(good)
        self._checkpoints.last_step = self.state.step
        self._open_log()

    def _open_log(self) -> None:
        """Begin or continue the log after the current step, in the process that writes it."""
        self._log = None
        if self._engine.writes:
            self._log = RunLog(self._files.folder, self._run.dataset.unit, self.state.step)

    def _require_finite(self, which: str) -> None:
        """Check that no weight is NaN or infinite.

        Args:
            which: the clause that describes the state in the message.

        Raises:
            CrucibleError: a weight is NaN or infinite.
        """
        if not self.state.stepper.is_finite():
            raise CrucibleError(
                f"The state after step {self.state.step} {which} contains NaN or infinite weights; a LoRA saved from "
                f"it would be unusable. Lower learning_rate (it is {self._config.learning_rate:g}), or turn on "
                "retrain to start over."
            )

    def _plot_losses(self) -> None:
        if self._log is not None and self.state.step and can_plot():
            with self._best_effort.writing("The plot of the losses"):
                save_training_plot(
                    self._log.path,
                    self._files.folder / "loss.png",
                    self._run.dataset.unit,
                    self.state.evaluator.rounds,
                )
