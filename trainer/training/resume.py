"""Resuming of runs: a finished run is not trained twice, and an interrupted one continues where it stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..config import TrainingConfig
from ..data.base import Dataset
from ..distributed.processes import Processes, current
from ..errors import CrucibleError, errors_about
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
from .plan import RunPlan, plan_run
from .result import RunResult
from .run import run_training
from .sharing import require_rows, require_same_run

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
    """Train a LoRA under the config's `output_name`, resume the same run, or return its result if it is finished.

    Two runs are the same if they have the same name, dataset, base model and settings; only the settings in
    `MAY_CHANGE` may differ.

    Args:
        base_model: the base model to train on.
        dataset: the dataset to train on.
        config: the settings of the run.
        lora_folder: the folder for the LoRA file.
        runs_folder: the folder that holds one folder with everything else for each run.
        callbacks: the functions to call while the run works.
        retrain: whether to start over even if the run is finished or can be resumed.
        is_listed: a function that returns whether another folder that is searched for LoRAs has a file of this name.

    Raises:
        CrucibleError: `run_training` raises it, the name cannot be used for a file, the checkpoint to resume from does
            not belong to this run, or another process is training this run.
    """
    # An output name from a node has not been validated with the config.
    config = config.model_copy(update={"output_name": check_output_name(config.output_name)})
    plan = plan_run(base_model, dataset, config)
    base = f"{plan.identity}|{base_model.encoders_identity()}"
    record, processes = RunRecord.of(base, plan.plan, plan.initial, 0), current()
    require_same_run(record, processes)
    require_rows(plan.config, processes)
    if not processes.is_main:
        return _follow(base_model, plan, config, processes, callbacks)
    known = known_runs(lora_folder, runs_folder)
    record = replace(record, number=1 + max((other.number for _, other in known), default=0))
    if retrain:
        start = _Start()
    elif config.resume_from_checkpoint:
        start = _chosen(Path(config.resume_from_checkpoint).expanduser(), record, lora_folder)
    else:
        start = _found(record, known)
    if start.is_finished and start.earlier:
        processes.from_main(None)
        return _finished(start.earlier)
    for folder in dict.fromkeys((lora_folder, runs_folder)):
        require_writable(folder, "The LoRA or another file of its run")
    # A finished LoRA is never overwritten, and neither is a file that somebody else put there.
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
        processes.from_main([files.name, str(files.lora), str(files.folder), files.session])
        state = processes.state_from_main(start.state)
        result = run_training(base_model, plan, files, callbacks, state)
        try:
            record.write(files, finished=True)
        except CrucibleError as error:  # everything is saved; only the next start will not see that the run is finished
            log.warning("%s", error)
    return result


def _follow(
    base_model: BaseModel, plan: RunPlan, config: TrainingConfig, processes: Processes, callbacks: Callbacks | None
) -> RunResult:
    """Train along with the main process, which alone decides where the run starts and writes its files."""
    told = processes.from_main(None)
    if told is None:
        nowhere_written = Path(config.output_name)
        return RunResult(RunFiles(config.output_name, nowhere_written, nowhere_written, ""))
    name, lora, folder, session = told
    files = RunFiles(name, Path(lora), Path(folder), session)
    return run_training(base_model, plan, files, callbacks, processes.state_from_main(None))


@dataclass(frozen=True)
class _Start:
    """The point that a run starts from.

    Attributes:
        earlier: the files of the run to resume; None to start a new run.
        own: the files of an earlier run that this run may continue to write; None to create new ones.
        is_finished: whether the earlier run is finished, so that there is nothing left to train.
        state: the state of the checkpoint to resume from; None to start from the first step.
        note: a sentence for the user on how the run started, or "".
    """

    earlier: RunFiles | None = None
    own: RunFiles | None = None
    is_finished: bool = False
    state: dict[str, Any] | None = None
    note: str = ""


def _found(record: RunRecord, known: Sequence[tuple[RunFiles, RunRecord]]) -> _Start:
    """Find the latest run that is the same as this one and can be resumed.

    The files of a run that was killed before its first checkpoint are reused, but its training starts over.
    """
    note, own = "", None
    for files, other in known:
        if differences := record.differences(other):
            if not other.finished and not note and other.settings["output_name"] == record.settings["output_name"]:
                note = f"Started over instead of resuming {files.name}: {'; '.join(differences)}."
            continue
        if other.finished and other.steps == record.steps and _has_its_lora(files, other):
            return _Start(files, is_finished=True)
        step, state = Checkpoints(files.checkpoints, 1).latest() or (0, None)
        if other.finished and (state is None or step > record.steps):
            continue
        if step > record.steps:
            note = (
                f"Started over instead of resuming {files.name}: it has already been trained for {step} steps, and "
                f"max_train_steps is {record.steps}."
            )
            continue
        itself = files if _may_be_written(files, other) else None
        if state is not None:
            return _Start(files, itself or own, state=state, note=f"Resumed after step {step} of {files.name}.")
        own = own or itself
    return _Start(own=own, note=note)


def _chosen(folder: Path, record: RunRecord, lora_folder: Path) -> _Start:
    """Start from the checkpoint that `resume_from_checkpoint` names.

    Raises:
        CrucibleError: the checkpoint is incomplete or belongs to a run that is not the same as this one.
    """
    with errors_about("settings"):
        state = read_state(folder)
    step = state["step"]
    run = folder.resolve().parent.parent
    other = RunRecord.read(run)
    differences = ["the record of its run is missing or damaged"] if other is None else record.differences(other)
    if step > record.steps:
        differences.append(f"it was saved after step {step}, and max_train_steps is {record.steps}")
    if other is None or differences:
        raise CrucibleError(
            f"This run cannot be resumed from the checkpoint {folder} (resume_from_checkpoint): "
            f"{'; '.join(differences)}. Change the settings named here back to what they were, or clear "
            "resume_from_checkpoint to start over.",
            "settings",
        )
    files = RunFiles.of(run, lora_folder, other.session)
    own = files if _may_be_written(files, other) else None
    return _Start(files, own, state=state, note=f"Resumed after step {step} from {folder}.")


def _may_be_written(files: RunFiles, record: RunRecord) -> bool:
    """Return whether a resumed run may write to its own files; the LoRA of a finished run is never overwritten."""
    return not files.lora.exists() or (not record.finished and _has_its_lora(files, record))


def _has_its_lora(files: RunFiles, record: RunRecord) -> bool:
    return bool(record.session) and lora_session(files.lora) == record.session


@contextmanager
def _alone(files: RunFiles) -> Iterator[None]:
    """Lock a run inside the context, so that no two processes train it at the same time.

    The system releases the lock of a process that is killed.

    Raises:
        CrucibleError: another process is training the run.
    """
    path = files.folder.parent / ".locks" / f"{files.name}.lock"
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise CrucibleError(
            f"{files.name} is being trained by another process right now (in {files.folder}), and two processes would "
            "overwrite each other's files. Wait until it is done, stop it, or choose another name.",
            "in use",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _finished(files: RunFiles) -> RunResult:
    """Read the result of a finished run from its files."""
    tensors, metadata = read_lora(files.lora)
    note = (
        f"Nothing was trained: {files.name} is already finished, and its dataset, settings and base model have not "
        "changed since. Turn on retrain to train it again."
    )
    log.warning(note)
    return RunResult(
        files,
        lora=LoraModel(tensors, files.name, metadata),
        losses=[line["loss"] for line in read_log(files.folder / LOG)],
        samples=list(files.read_samples().values()),
        report=f"{note}\n\n{files.read_report()}",
    )
