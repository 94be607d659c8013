"""One training run from start to finish."""

from __future__ import annotations

import logging

from ..distributed.processes import current
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
    """Train a LoRA, save it, and check that the base model's loader can read the file.

    Whatever stops the run after its first step (Cancel, an error, Ctrl-C), a checkpoint and the LoRA so far are saved
    before the exception is passed on. A new run that is stopped earlier leaves no files.

    Args:
        base_model: the base model that the plan was made for.
        plan: the plan of the run.
        files: the files of the run.
        callbacks: the functions to call while the run works.
        start: the snapshot of the checkpoint to resume from; None to start from the first step.

    Raises:
        CrucibleError: the settings do not suit the model or the data, the run ran out of memory (OOM) whatever was
            tried, or a file cannot be written.
    """
    result = RunResult(files)
    for warning in base_model.warnings():
        log.warning(warning)
    try:
        _train(base_model, plan, callbacks or Callbacks(), start, result)
    except BaseException as error:  # ComfyUI's Cancel and Ctrl-C are not Exceptions
        if current().is_main and start is None and not result.losses:
            files.give_up()
        if base_model.memory.is_out_of_memory(error):
            forget_tensors(error)
            raise CrucibleError(
                f"There is not enough memory for {base_model.name} with its encoders ({error}), so it cannot be "
                "trained with these settings. Close other programs that use memory, lower "
                f"{'max_seq_length' if plan.config.resolution is None else 'the resolution'}, or train a smaller "
                "model.",
                "memory",
            ) from error
        raise
    return result


def _train(
    base_model: BaseModel, plan: RunPlan, callbacks: Callbacks, start: Snapshot | None, result: RunResult
) -> None:
    """Train, and fill in the result.

    If a step runs out of memory (OOM) and no smaller memory plan is left, training continues at a lower resolution,
    provided that the config allows it.
    """
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
            log.warning("%s\nThe run therefore continues at resolution %d.", error, lower)
            resolution, start = lower, current().state_from_main(trainer.good)
