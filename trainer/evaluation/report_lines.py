"""The report lines about the error of a run."""

from __future__ import annotations

from ..config import ResolvedConfig
from ..data.base import Dataset
from ..messages.wording import counted
from .error_signs import shown_on_others
from .evaluator import Evaluator
from .result_evaluation import ResultEvaluation


def validation_lines(
    evaluator: Evaluator, config: ResolvedConfig, dataset: Dataset, evaluation: ResultEvaluation
) -> list[str]:
    """Return the report lines about the error on fixed examples; empty if it was not measured.

    Args:
        evaluator: the evaluator that measured the run.
        config: the settings of the run.
        dataset: the dataset that was trained.
        evaluation: the measurement of the result, which knows how errors are told.
    """
    if evaluator.validation is None or not evaluator.rounds:
        return []
    start, last, seconds = evaluator.rounds[0], evaluator.rounds[-1], evaluator.validation.seconds
    best, told, conditions = evaluator.best, evaluation.error_text, evaluation.conditions
    if start.held_out is None or best is None:
        count = counted(len(evaluator.validation.training), f"training {dataset.unit}")
        return [
            f"Error on {count}{conditions}: {told(start.error)} before the first step, {told(last.error)} after step "
            f"{last.step} (measuring took {seconds:.1f} s)"
        ]
    count = counted(len(evaluator.validation.held_out), dataset.unit)
    lines = [
        f"Validation on {count}{conditions}: {told(start.error)} before the first step, {told(best.error)} at best "
        f"(step {best.step}), {told(last.error)} at the end; on as many training {dataset.unit}s "
        f"{told(start.training)} and {told(last.training)} ({len(evaluator.rounds)} measurements took {seconds:.1f} s)"
    ]
    shown = shown_on_others(evaluator.rounds)
    if shown is not None:
        lines.append(
            f"Of what was learned from training {dataset.unit}s, {max(0.0, shown):.0%} carries over to the others"
        )
    if evaluator.stopped_early:
        patience, threshold = config.early_stopping_patience, config.early_stopping_threshold
        lines.append(
            f"Stopped early: {counted(patience, 'measurement')} in a row did not lower the validation error by "
            f"{threshold:.1%} (early_stopping_patience, early_stopping_threshold)"
        )
    return lines
