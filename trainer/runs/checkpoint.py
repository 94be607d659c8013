"""Checkpoints: states of a run on disk to resume from. A checkpoint is complete or does not exist."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from ..errors import CrucibleError
from ..files.atomic import explained, sync_folder, write_whole
from ..files.tensor_tree import packed, unpacked
from ..formats.foreign_states import foreign_state
from ..formats.lora_file import write_lora
from ..formats.lora_model import LoraModel
from ..formats.tensor_file import data_parts, file_parts

log = logging.getLogger(__name__)

VERSION = 4
"""The version of the contents of a state; it must change whenever older states can no longer be used."""

TENSORS, STRUCTURE = "state.safetensors", "state.json"
SECONDS = 60
"""The time between two checkpoints if `save_steps` is not set, in seconds."""

_NAME = re.compile(r"step_(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` steps, with its LoRA files.

    Attributes:
        step: the number of steps done.
        state: the state to resume from, as nested lists, tuples and dicts of CPU tensors and plain values.
        loras: the LoRAs to save with it, by file name without extension: the current one and, if that is not the best,
            the best one.
    """

    step: int
    state: dict[str, Any]
    loras: Mapping[str, LoraModel]


class Checkpoints:
    """The checkpoints of a run, each in a folder of its own; the oldest are deleted.

    Args:
        folder: the folder of all checkpoints of the run.
        keep: the number of latest checkpoints to keep; 0 counts as 1 while the run trains.

    Attributes:
        folder: the folder of all checkpoints of the run.
        last_step: the step of the checkpoint that was written last or that the run was resumed from; None before the
            first.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = max(keep, 1)
        self._started = time.monotonic()
        self.last_step: int | None = None
        self._tried_step = 0
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[tuple[int, Path]] | None = None

    def is_due(self, step: int, every: int | None) -> bool:
        """Return whether a checkpoint is due after a step.

        While the last one is still being written, none is due, because training does not wait for the disk.

        Args:
            step: the number of steps done.
            every: the number of steps between two checkpoints; None saves one whenever the last is `SECONDS` old.
        """
        if self._writing is not None and not self._writing.done():
            return False
        if every is None:
            return time.monotonic() - self._started >= SECONDS
        return step // every > max(self._tried_step, self.last_step or 0) // every

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint in the background. Call `wait` first, and do not change the checkpoint afterwards."""
        self._started, self._tried_step = time.monotonic(), checkpoint.step
        self.last_step = checkpoint.step
        self._writing = self._writer.submit(self._write, checkpoint)

    @property
    def is_written(self) -> bool:
        """Whether `wait` would report a checkpoint, or its failure, without waiting."""
        return self._writing is not None and self._writing.done()

    def wait(self) -> tuple[int, Path] | None:
        """Wait until the last checkpoint is on disk.

        Returns:
            Its step and its folder; None if none was written since the last `wait`.

        Raises:
            CrucibleError: it could not be written; earlier checkpoints are intact.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return None
        try:
            return writing.result()
        except BaseException:
            self.last_step = None
            raise

    def _write(self, checkpoint: Checkpoint) -> tuple[int, Path]:
        unfinished, final = self.folder / ".unfinished", self.folder / f"step_{checkpoint.step:06}"
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            write_state(unfinished, checkpoint.state)
            for name, lora in checkpoint.loras.items():
                write_lora(unfinished / f"{name}.safetensors", lora, lora.metadata)
            with explained(final, "The checkpoint"):
                shutil.rmtree(final, ignore_errors=True)
                unfinished.rename(final)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        sync_folder(self.folder)
        # Later ones are damaged, or the run went back to before them and will take another course.
        for step, later in self._found():
            if step > checkpoint.step:
                shutil.rmtree(later, ignore_errors=True)
        self.keep_only(self._keep)
        return checkpoint.step, final

    def keep_only(self, count: int) -> None:
        """Delete all but the latest `count` checkpoints."""
        for _, old in self._found()[count:]:
            shutil.rmtree(old, ignore_errors=True)
        if not count:
            shutil.rmtree(self.folder, ignore_errors=True)

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """Return step and state of the latest intact checkpoint, or None. Damaged ones are logged and skipped."""
        for step, folder in self._found():
            try:
                return step, read_state(folder)
            except CrucibleError as error:
                log.warning("%s", error)
        return None

    def _found(self) -> list[tuple[int, Path]]:
        """Return the step and folder of each checkpoint, the latest first."""
        folders = self.folder.iterdir() if self.folder.is_dir() else ()
        found = [(int(match[1]), path) for path in folders if (match := _NAME.fullmatch(path.name))]
        return sorted(found, reverse=True)


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a state as two files: one with its tensors, one with its structure and a digest of both.

    Raises:
        CrucibleError: the disk is full, or the system reports another error.
    """
    tensors: dict[str, Tensor] = {}
    structure = packed(state, tensors)
    parts = file_parts(tensors, data_parts(tensors))
    write_whole(folder / TENSORS, *parts, what="The checkpoint")
    described = {"version": VERSION, "digest": _digest(parts, structure), "structure": structure}
    write_whole(folder / STRUCTURE, json.dumps(described).encode(), what="The checkpoint")


def read_state(folder: Path) -> dict[str, Any]:
    """Read and check a state that `write_state` wrote.

    Raises:
        CrucibleError: the state does not exist, is incomplete or damaged, has another version, or is one of another
            program.
    """
    if not (folder / STRUCTURE).is_file() and (foreign := foreign_state(folder)) is not None:
        raise CrucibleError(
            f"{folder} cannot be resumed: it is {foreign.what}, and only that program can go on from it. Its files are "
            f"not opened, because pickles can run code. {foreign.advice}"
        )
    try:
        described = json.loads((folder / STRUCTURE).read_bytes())
        content = (folder / TENSORS).read_bytes()
        version, digest, structure = described["version"], described["digest"], described["structure"]
    except OSError as error:
        raise _useless(folder, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _useless(folder, f"{STRUCTURE} is damaged ({error})") from error
    if version != VERSION:
        raise _useless(folder, f"it has version {version}, and this version of LoRA Crucible needs {VERSION}")
    if digest != _digest([content], structure):
        raise _useless(folder, "its files have changed since they were written")
    state: dict[str, Any] = unpacked(structure, safetensors.torch.load(content))
    return state


def _digest(parts: Iterable[bytes | memoryview], structure: Any) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        digest.update(part)
    digest.update(json.dumps(structure).encode())
    return digest.hexdigest()


def _useless(folder: Path, why: str) -> CrucibleError:
    return CrucibleError(
        f"The checkpoint {folder} cannot be resumed: {why}. Unless resume_from_checkpoint names it, training "
        "resumes from the latest intact checkpoint, or starts from the first step if there is none."
    )
