"""One training run, start to finish: plan, prepare, train, finish."""

from __future__ import annotations

import logging

from ..errors import CrucibleError
from ..events.callbacks import Callbacks
from ..hardware.out_of_memory import forget_tensors
from ..memory.step_memory import NothingFits
from ..models.base import BaseModel
from ..planning.lower_resolution import next_lower
from ..runs.paths import RunFiles
from .plan import RunPlan
from .prepare import prepare
from .result import RunResult
from .state import Snapshot
from .trainer import Trainer

log = logging.getLogger(__name__)


def run_training(
    base_model: BaseModel,
    plan: RunPlan,
    files: RunFiles,
    callbacks: Callbacks | None = None,
    start: Snapshot | None = None,
) -> RunResult:
    """Train a LoRA, save it, and read the file back through the base model's loader.

    Whatever stops the run after its first step (Cancel, an error, Ctrl-C), a checkpoint and the LoRA so far are saved
    before the exception is passed on. A new run that is stopped earlier leaves no file.

    Args:
        base_model: the base model that the plan was made for.
        plan: what to train.
        files: where to write.
        callbacks: who follows the run.
        start: the snapshot of a checkpoint to continue from.

    Raises:
        CrucibleError: settings that suit neither model nor data, not enough memory, or a file that cannot be written.
    """
    result = RunResult(files)
    for warning in base_model.warnings():
        log.warning(warning)
    try:
        _train(base_model, plan, callbacks or Callbacks(), start, result)
    except BaseException as error:  # ComfyUI's Cancel and Ctrl-C are not Exceptions
        if start is None and not result.losses:
            files.give_up()
        if base_model.memory.is_out_of_memory(error):
            forget_tensors(error)
            raise CrucibleError(
                f"Memory does not suffice for {base_model.name} with its encoders ({error}), so it cannot be trained "
                "here as it is. Close other programs that hold memory, or train a smaller model or at a lower "
                "resolution."
            ) from error
        raise
    return result


def _train(
    base_model: BaseModel, plan: RunPlan, callbacks: Callbacks, start: Snapshot | None, result: RunResult
) -> None:
    """Fill the result, at a lower resolution if nothing else makes the run fit and the config allows it."""
    resolution = plan.config.resolution if start is None else start["resolution"]
    while True:
        planned = plan.at_resolution(resolution)
        trainer: Trainer | None = None
        try:
            with base_model.session(planned.config.mixed_precision) as engine:
                prepared = prepare(base_model, planned, result.files, callbacks)
                trainer = Trainer(prepared, engine, result.files, callbacks, result)
                trainer.train(start)
            return
        except NothingFits as error:
            lower = next_lower(planned.config)
            if lower is None or trainer is None:
                raise
            log.warning("%s\nSo the run goes on at resolution %d.", error, lower)
            resolution, start = lower, trainer.good
