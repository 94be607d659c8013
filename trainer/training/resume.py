"""Knows a run again: one that is finished is not trained twice, one that was interrupted goes on where it was."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..config import TrainingConfig
from ..data.base import Dataset
from ..errors import CrucibleError
from ..events.callbacks import Callbacks
from ..files.atomic import require_writable
from ..files.names import check_output_name, nowhere
from ..formats.lora_file import read_lora
from ..formats.lora_model import LoraModel
from ..models.base import BaseModel
from ..runs.checkpoint import Checkpoints, read_state
from ..runs.log import read_log
from ..runs.paths import LOG, RunFiles
from ..runs.record import RunRecord, known_runs, lora_session
from .plan import plan_run
from .result import RunResult
from .run import run_training

log = logging.getLogger(__name__)


def train_or_resume(
    base_model: BaseModel,
    dataset: Dataset,
    config: TrainingConfig,
    lora_folder: Path,
    runs_folder: Path,
    callbacks: Callbacks | None = None,
    *,
    retrain: bool = False,
    is_listed: Callable[[str], bool] = nowhere,
) -> RunResult:
    """Train as `config` says, under its `output_name`. Where the same run was interrupted it goes on, and where it is
    finished its result is returned.

    The same run has the same name, images, captions, base model and settings, but those of `MAY_CHANGE`.

    Args:
        lora_folder: for the LoRA. runs_folder: for a folder with everything else of each run.
        retrain: whether to train anew, whatever there is.
        is_listed: whether a LoRA of this file name is in another folder that counts.

    Raises:
        CrucibleError: as `run_training`; or no file can have that name; or another process is at this very run.
    """
    # A node's name has not been through the config's validation.
    config = config.model_copy(update={"output_name": check_output_name(config.output_name)})
    plan = plan_run(base_model, dataset, config)
    known = known_runs(lora_folder, runs_folder)
    number = 1 + max((other.number for _, other in known), default=0)
    base = f"{plan.identity}|{base_model.encoders_identity()}"
    record = RunRecord.of(base, plan.plan, plan.initial, number)
    if retrain:
        start = _Start()
    elif config.resume_from_checkpoint:
        start = _chosen(Path(config.resume_from_checkpoint).expanduser(), record, lora_folder)
    else:
        start = _found(record, known)
    if start.is_finished and start.earlier:
        return _finished(start.earlier)
    for folder in dict.fromkeys((lora_folder, runs_folder)):
        require_writable(folder, "The LoRA, or what belongs to its run,")
    # A finished LoRA stays, and so does a file that somebody else put there.
    files = start.own or RunFiles.claim(config.output_name, lora_folder, runs_folder, is_listed)
    if start.note:
        log.warning(start.note)
    with _alone(files):
        files.delete_unfinished()
        record.write(files)
        if start.earlier and start.earlier != files:
            files.take_history(start.earlier)
        if start.note:
            plan = plan.with_notes(start.note)
        result = run_training(base_model, plan, files, callbacks, start.state)
        try:
            record.write(files, finished=True)
        except CrucibleError as error:  # all is there, and the next time shows it
            log.warning("%s", error)
    return result


@dataclass(frozen=True)
class _Start:
    """Where a run begins.

    Attributes:
        earlier: the run that it goes on with; None for none.
        own: files of a run that it may go on in; None for new ones.
        is_finished: whether nothing is left to be done.
        state: of a checkpoint; None at the first step.
        note: what the user should know of it.
    """

    earlier: RunFiles | None = None
    own: RunFiles | None = None
    is_finished: bool = False
    state: dict[str, Any] | None = None
    note: str = ""


def _found(record: RunRecord, known: Sequence[tuple[RunFiles, RunRecord]]) -> _Start:
    """By itself: the latest of the same run. One that was killed before its first checkpoint lends its files only."""
    note, own = "", None
    for files, other in known:
        if differences := record.differences(other):
            if not other.finished and not note and other.settings["output_name"] == record.settings["output_name"]:
                note = f"Started anew rather than going on with {files.name}: {'; '.join(differences)}."
            continue
        if other.finished and other.steps == record.steps and _has_its_lora(files, other):
            return _Start(files, is_finished=True)
        step, state = Checkpoints(files.checkpoints, 1).latest() or (0, None)
        if other.finished and (state is None or step > record.steps):
            continue
        if step > record.steps:
            note = (
                f"Started anew rather than going on with {files.name}: it has had {step} steps, and {record.steps} are "
                "asked for."
            )
            continue
        itself = files if _may_be_written(files, other) else None
        if state is not None:
            return _Start(files, itself or own, state=state, note=f"Went on after step {step} of {files.name}.")
        own = own or itself
    return _Start(own=own, note=note)


def _chosen(folder: Path, record: RunRecord, lora_folder: Path) -> _Start:
    """From the checkpoint that the user named.

    Raises:
        CrucibleError: it is not whole, or of a run that cannot go on as this one.
    """
    state = read_state(folder)
    step = state["step"]
    run = folder.resolve().parent.parent
    other = RunRecord.read(run)
    differences = ["the record of its run is not there"] if other is None else record.differences(other)
    if step > record.steps:
        differences.append(f"it is of step {step}, and the run is to have {record.steps}")
    if other is None or differences:
        raise CrucibleError(
            f"This run cannot go on from resume_from_checkpoint {folder}: {'; '.join(differences)}. Set what is named "
            "back to what it was, or take resume_from_checkpoint out to start anew."
        )
    files = RunFiles.of(run, lora_folder, other.session)
    own = files if _may_be_written(files, other) else None
    return _Start(files, own, state=state, note=f"Went on after step {step} from {folder}.")


def _may_be_written(files: RunFiles, record: RunRecord) -> bool:
    """Whether a run may go on under its own name: the LoRA of a finished one stays as it is."""
    return not files.lora.exists() or (not record.finished and _has_its_lora(files, record))


def _has_its_lora(files: RunFiles, record: RunRecord) -> bool:
    return bool(record.session) and lora_session(files.lora) == record.session


@contextmanager
def _alone(files: RunFiles) -> Iterator[None]:
    """No two processes train one run. The system frees the lock of a process that is killed."""
    path = files.folder.parent / ".locks" / f"{files.name}.lock"
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise CrucibleError(
            f"{files.name} is being trained by another process right now (in {files.folder}), and two would spoil each "
            "other's files. Wait until it is done, stop it, or choose another name."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _finished(files: RunFiles) -> RunResult:
    """What a finished run made, read from its files."""
    tensors, metadata = read_lora(files.lora)
    note = (
        f"Nothing was trained: {files.name} is finished, and neither images, captions, settings nor base model have "
        "changed since. Set retrain to train it anew."
    )
    log.warning(note)
    return RunResult(
        files,
        lora=LoraModel(tensors, files.name, metadata),
        losses=[line["loss"] for line in read_log(files.folder / LOG)],
        samples=list(files.read_samples().values()),
        report=f"{note}\n\n{files.read_report()}",
    )
