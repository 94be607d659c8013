"""States of a run on disk, to go on from: each is whole, or it is not there."""

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
from ..formats.lora_file import write_lora
from ..formats.lora_model import LoraModel
from ..formats.tensor_file import data_parts, file_parts

log = logging.getLogger(__name__)

VERSION = 2
"""Of what a state holds. A change that makes older ones useless must change it."""

TENSORS, STRUCTURE = "state.safetensors", "state.json"
SECONDS = 60
"""Between two checkpoints when nobody says how often."""

_NAME = re.compile(r"step_(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` steps.

    Attributes:
        state: nested lists, tuples and dictionaries of CPU tensors and plain values, from which training goes on.
        loras: files for use, by name: the LoRA as it is, and perhaps as it was best.
    """

    step: int
    state: dict[str, Any]
    loras: Mapping[str, LoraModel]


class Checkpoints:
    """The checkpoints of a run: a folder with one folder for each.

    Args:
        keep: how many of the latest stay, at least one.

    Attributes:
        last_step: of the one that was written last, or that the run goes on from; None before the first.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = max(keep, 1)
        self._started = time.monotonic()
        self.last_step: int | None = None
        self._tried_step = 0
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def is_due(self, step: int, every: int | None) -> bool:
        """After a step: every so many, or (None) when the last one is `SECONDS` old. Not before the last one is on
        disk: training does not wait for it, and the next step asks again."""
        if self._writing is not None and not self._writing.done():
            return False
        if every is None:
            return time.monotonic() - self._started >= SECONDS
        return step // every > max(self._tried_step, self.last_step or 0) // every

    def write(self, checkpoint: Checkpoint) -> None:
        """Write in the background, after `wait` for the one before. What it holds must not change any more."""
        self._started, self._tried_step = time.monotonic(), checkpoint.step
        self.last_step = checkpoint.step
        self._writing = self._writer.submit(self._write, checkpoint)

    def wait(self) -> None:
        """Until the last checkpoint is on disk.

        Raises:
            CrucibleError: it could not be written; those before are as they were.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            try:
                writing.result()
            except BaseException:
                self.last_step = None
                raise

    def _write(self, checkpoint: Checkpoint) -> None:
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
        # Later ones are damaged, or of a course that the run does not take again.
        for step, later in self._found():
            if step > checkpoint.step:
                shutil.rmtree(later, ignore_errors=True)
        self.keep_only(self._keep)

    def keep_only(self, count: int) -> None:
        """Delete all but the latest."""
        for _, old in self._found()[count:]:
            shutil.rmtree(old, ignore_errors=True)
        if not count:
            shutil.rmtree(self.folder, ignore_errors=True)

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """Step and state of the latest checkpoint that is whole; None where there is none. Damaged ones are named in
        the log and passed over."""
        for step, folder in self._found():
            try:
                return step, read_state(folder)
            except CrucibleError as error:
                log.warning("%s", error)
        return None

    def _found(self) -> list[tuple[int, Path]]:
        """Step and folder, the latest first."""
        folders = self.folder.iterdir() if self.folder.is_dir() else ()
        found = [(int(match[1]), path) for path in folders if (match := _NAME.fullmatch(path.name))]
        return sorted(found, reverse=True)


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """A state as tensors in one file, and what they are parts of in another, with a digest of both.

    Raises:
        CrucibleError: the disk is full, or the system fails otherwise.
    """
    tensors: dict[str, Tensor] = {}
    structure = packed(state, tensors)
    parts = file_parts(tensors, data_parts(tensors))
    write_whole(folder / TENSORS, *parts, what="The checkpoint")
    described = {"version": VERSION, "digest": _digest(parts, structure), "structure": structure}
    write_whole(folder / STRUCTURE, json.dumps(described).encode(), what="The checkpoint")


def read_state(folder: Path) -> dict[str, Any]:
    """
    Raises:
        CrucibleError: it is not there, not whole, or of another version.
    """
    try:
        described = json.loads((folder / STRUCTURE).read_bytes())
        content = (folder / TENSORS).read_bytes()
        version, digest, structure = described["version"], described["digest"], described["structure"]
    except OSError as error:
        raise _useless(folder, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _useless(folder, f"{STRUCTURE} is damaged ({error})") from error
    if version != VERSION:
        raise _useless(folder, f"it is of version {version}, and this is {VERSION}")
    if digest != _digest([content], structure):
        raise _useless(folder, "it does not hold what was written")
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
        f"The checkpoint {folder} cannot be gone on from: {why}. The one before it is used where there is one; else "
        "the run starts from its first step."
    )
