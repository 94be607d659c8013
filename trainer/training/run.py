"""One training run, start to finish."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..config import TrainingConfig
from ..data.images.dataset import Dataset
from ..errors import CrucibleError
from ..events.callbacks import Callbacks
from ..hardware.device_memory import forget_tensors
from ..memory.step_memory import NothingFits
from ..models.base import BaseModel
from ..models.initial_lora import InitialLora
from ..planning.lower_resolution import limited, next_lower
from ..planning.plan import Plan, make_plan
from ..runs.paths import RunFiles
from .trainer import RunResult, Training

log = logging.getLogger(__name__)


def run_training(
    base_model: BaseModel,
    dataset: Dataset,
    config: TrainingConfig,
    files: RunFiles,
    callbacks: Callbacks | None = None,
    start: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
    continued: InitialLora | None = None,
) -> RunResult:
    """Train a LoRA, save it, and read the file back through the base model's loader.

    Whatever stops the run after its first step (Cancel, an error, Ctrl-C), a checkpoint and the LoRA so far are saved
    before the exception goes on. A new run that is stopped earlier leaves no file.

    Args:
        start: the state of a checkpoint to go on from.
        notes: sentences for the report.
        continued: the LoRA to start from, where `config` names one.

    Raises:
        CrucibleError: settings that fit neither model nor data, or a file that cannot be written.
    """
    result = RunResult(files)
    try:
        dataset.require_trainable()
        warnings = base_model.warnings()
        for warning in warnings:
            log.warning(warning)
        _train(base_model, dataset, config, callbacks or Callbacks(), start, (*notes, *warnings), result, continued)
    except BaseException as error:  # ComfyUI's Cancel and Ctrl-C are no Exceptions
        if start is None and not result.losses:
            files.give_up()
        if base_model.is_out_of_memory(error):
            forget_tensors(error)
            raise CrucibleError(
                f"Memory does not suffice for {base_model.name} with its encoders ({error}), so it cannot be trained "
                "here as it is. Close other programs that hold memory, or train a smaller model or at a lower "
                "resolution."
            ) from error
        raise
    return result


def _train(
    base_model: BaseModel,
    dataset: Dataset,
    config: TrainingConfig,
    callbacks: Callbacks,
    start: dict[str, Any] | None,
    notes: Sequence[str],
    result: RunResult,
    continued: InitialLora | None,
) -> None:
    """Fill the result, at a lower resolution where memory leaves no other way and the config allows it."""
    identity = base_model.identity()
    decided = config
    if continued is not None:
        decided, notes = continued.settings(config), (*notes, *continued.notes)
    asked = make_plan(decided, dataset, base_model.facts)
    resolution = asked.resolved.values.resolution if start is None else start["resolution"]
    while True:
        plan = _at(resolution, asked, decided, dataset, base_model)
        plan = replace(plan, notes=(*notes, *plan.notes))
        try:
            with base_model.session(config.mixed_precision) as precision:
                training = Training(base_model, identity, plan, config, precision, callbacks, result, continued)
                training.train(start)
            return
        except NothingFits as error:
            lower = next_lower(plan.resolved.values)
            if lower is None:
                raise
            log.warning("%s\nSo the run goes on at resolution %d.", error, lower)
            resolution, start = lower, training.good


def _at(resolution: int, asked: Plan, config: TrainingConfig, dataset: Dataset, base_model: BaseModel) -> Plan:
    """The plan that was asked for, or one at a lower resolution."""
    before = asked.resolved.values.resolution
    if resolution >= before:
        return asked
    plan = make_plan(config, limited(dataset, resolution), base_model.facts)
    note = f"Trained at resolution {resolution} rather than {before}, for which memory did not suffice."
    return replace(plan, notes=(note, *plan.notes))
