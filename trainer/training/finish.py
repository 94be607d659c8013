"""The end of a run: its LoRA, its report and its verdict."""

from __future__ import annotations

import logging

from ..adapters.adapters import Adapters
from ..errors import CrucibleError
from ..evaluation.evidence import Evidence
from ..evaluation.report_lines import validation_lines
from ..evaluation.verdict import judge
from ..monitoring.loss_swings import find_swing
from ..monitoring.step_time import Pace
from ..optim.engine import Engine
from ..planning.resolve import usual_learning_rate
from ..runs.best_effort import BestEffort
from ..runs.log import read_log
from ..runs.lora_writer import LoraWriter
from ..runs.paths import LOG, RunFiles
from ..runs.report import SavedLora, training_report
from .prepare import PreparedRun
from .result import RunResult
from .sharing import sharing_lines
from .state import TrainingState

log = logging.getLogger(__name__)


class Finish:
    """Saves and reports a run, at its end or where it was stopped.

    Args:
        run: the prepared run.
        engine: the engine that the run was trained with.
        files: the files of the run.
        best_effort: collects notes about files that could not be written.
        writer: the writer of the LoRA file.
        step_time: the record of how long the steps took.
        result: the result object, which is filled in.
    """

    def __init__(
        self,
        run: PreparedRun,
        engine: Engine,
        files: RunFiles,
        best_effort: BestEffort,
        writer: LoraWriter,
        step_time: Pace,
        result: RunResult,
    ) -> None:
        self._run, self._engine, self._files, self._best_effort = run, engine, files, best_effort
        self._writer, self._step_time, self._result = writer, step_time, result

    def save(self, state: TrainingState, outcome: str) -> SavedLora:
        """Save the LoRA, and write a first report next to it.

        Args:
            state: the state of the run.
            outcome: how the run ended, such as "finished".

        Raises:
            CrucibleError: the disk is full, or writing fails for another reason.
        """
        saved, self._result.lora = self._writer.save(outcome, state.step)
        self.write_report(state, saved)
        return saved

    def measure(self, state: TrainingState, adapters: Adapters) -> None:
        """Measure what the model makes with the LoRA and without it, and write what was compared."""
        seconds = state.previews.seconds_per_sampling_step
        for name, content in self._run.evaluation.measure(adapters, state.seconds, seconds).items():
            with self._best_effort.writing(f"The file {name}"):
                self._files.write_shown(name, content)

    def keep(self, state: TrainingState, stop: BaseException) -> None:
        """Save the LoRA of a run that is being stopped.

        Args:
            state: the state of the run.
            stop: the exception that stops the run.

        Raises:
            CrucibleError: the LoRA cannot be saved, and no other error stopped the run.
        """
        is_error = isinstance(stop, Exception)  # Cancel and Ctrl-C are not
        try:
            with state.stepper.weights_for_use():
                outcome = "stopped by an error" if is_error else "cancelled"
                saved, self._result.lora = self._writer.save(outcome, state.step)
            self.write_report(state, saved, complete=False)
        except CrucibleError as error:
            if not is_error:
                raise
            log.error("%s", error)  # the user sees the error that stopped the run
        else:
            log.warning(self._result.report)

    def write_report(self, state: TrainingState, saved: SavedLora, complete: bool = True) -> None:
        """Judge the run, write its report, and fill in the result.

        Args:
            state: the state of the run.
            saved: the LoRA that was saved.
            complete: whether the run reached its end.
        """
        run, result = self._run, self._result
        result.samples, result.rounds = state.previews.rounds, state.evaluator.rounds
        evidence = self._evidence(state, complete)
        result.verdict = judge(evidence)
        result.report = training_report(
            saved,
            run.base_model,
            run.dataset,
            run.config,
            precision=self._engine.precision,
            losses=state.losses,
            seconds=state.seconds,
            cache_text=run.cache_line,
            watched=[*self._watched(state, complete), *(result.verdict.lines() if evidence else [])],
            reasons=run.reasons,
            notes=(*run.notes, *self._best_effort.notes),
        )
        with self._best_effort.writing("The report"):
            self._files.write_report(result.report)

    def _watched(self, state: TrainingState, complete: bool) -> list[str]:
        """Return the report lines about everything that was measured besides the loss."""
        run = self._run
        return [
            *sharing_lines(run.config, self._engine.processes),
            *state.memory.lines(),
            self._run.room.line,
            *state.anomalies.lines(),
            *self._step_time.lines(),
            *validation_lines(state.evaluator, run.config, run.dataset, run.evaluation),
            *state.hard_examples.lines(run.config.downweight_hard_images, run.dataset.unit),
            *state.previews.lines(),
            *run.evaluation.lines(complete),
        ]

    def _evidence(self, state: TrainingState, complete: bool) -> Evidence:
        run, config = self._run, self._run.config
        usual_rate, _ = usual_learning_rate(config, run.base_model.facts)
        logged = read_log(self._files.folder / LOG)
        return Evidence(
            rounds=state.evaluator.rounds,
            config=config,
            examples=len(run.dataset.training_names),
            unit=run.dataset.unit,
            has_captions=bool(run.dataset.captions),
            usual_rate=usual_rate,
            complete=complete,
            stopped_early=state.evaluator.stopped_early,
            measures=run.evaluation.measures,
            makes_texts=run.evaluation.makes_texts,
            swing=find_swing([line["errors"] for line in logged if not line["skipped"]]),
        )
