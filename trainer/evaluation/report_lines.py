"""The report lines about the error of a run."""

from __future__ import annotations

from ..config import ResolvedConfig
from ..data.base import Dataset
from ..messages.wording import counted
from .evaluator import Evaluator
from .verdict import shown_on_others


def validation_lines(evaluator: Evaluator, config: ResolvedConfig, dataset: Dataset) -> list[str]:
    """Return the report lines about the error on fixed examples; empty if it was not measured.

    Args:
        evaluator: the evaluator that measured the run.
        config: the settings of the run.
        dataset: the dataset that was trained.
    """
    if evaluator.validation is None or not evaluator.rounds:
        return []
    start, last, seconds = evaluator.rounds[0], evaluator.rounds[-1], evaluator.validation.seconds
    best = evaluator.best
    if start.held_out is None or best is None:
        count = counted(len(evaluator.validation.training), f"training {dataset.unit}")
        return [
            f"Error on {count}, fixed noise: {start.error:.4f} before the first step, {last.error:.4f} after step "
            f"{last.step} (measuring took {seconds:.1f} s)"
        ]
    count = counted(len(evaluator.validation.held_out), dataset.unit)
    lines = [
        f"Validation on {count}, fixed noise: {start.error:.4f} before the first step, {best.error:.4f} at best "
        f"(step {best.step}), {last.error:.4f} at the end; on as many training {dataset.unit}s {start.training:.4f} "
        f"and {last.training:.4f} ({len(evaluator.rounds)} measurements took {seconds:.1f} s)"
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
