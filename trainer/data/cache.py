"""An on-disk cache of encoded images and captions, so that the frozen encoders run only once for each.

There is one safetensors file per entry, named by a hash of everything that the entry depends on, so an entry is either
correct or missing. Files are written under a temporary name and then renamed, so an existing file is complete, and
several runs may share a folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..distributed.processes import IsOutOfMemory, current
from ..distributed.shared_folder import sharing
from ..files.tensor_tree import packed, unpacked

log = logging.getLogger(__name__)

VERSION = 1
"""The version of the way entries are computed. It must change whenever preprocessing does."""

IN_MEMORY = 2**28
"""The most bytes of entries that are kept in memory."""

KEPT_SECONDS = 24 * 3600
"""Entries used within this time are never deleted, because a run may be using them."""

TOUCH_SECONDS = 3600
"""A file's time of last use is only updated when it is older than this."""


def cache_folder(runs_folder: Path) -> Path:
    """Return the cache folder that all runs of a folder share."""
    return runs_folder / ".cache"


@dataclass(frozen=True)
class Job:
    """An entry that can be computed.

    Attributes:
        key: the key of the entry.
        make: a function that computes it.
        what: what is being done, for the progress.
        cost: the time that it takes relative to others.
        count: the number of examples in it, for the progress.
    """

    key: str
    make: Callable[[], Any]
    what: str
    cost: int = 1
    count: int = 1


class TensorCache:
    """A cache of nested lists, tuples and dictionaries of tensors and plain values, by key.

    Args:
        folder: the folder of the entries, created when the first is stored; None keeps everything in memory.
        limit: the number of bytes on disk above which `clean` deletes the entries unused for longest.

    Attributes:
        made: the number of entries that were computed.
        found: the number of entries that `holds` found on disk.
    """

    def __init__(self, folder: Path | None, limit: int = 0) -> None:
        self.folder = folder
        self.limit = limit
        self.made = 0
        self.found = 0
        self._memory: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._unwritten: dict[str, Any] = {}
        self._sharing: tuple[int, ...] | None = None

    def get(self, key: str, make: Callable[[], Any] | None = None) -> Any:
        """Return the entry of a key; if there is none, compute it with `make` and store it.

        Raises:
            KeyError: there is no entry, and `make` is None.
        """
        if key in self._unwritten:
            return self._unwritten[key]
        if key in self._memory:
            self._memory.move_to_end(key)
            return self._memory[key][0]
        value = self._read(key)
        if value is None:
            if make is None:
                raise KeyError(key)
            value = make()
            self.made += 1
            value = self._write(key, value)
        self._remember(key, value)
        return value

    def fill(self, jobs: Sequence[Job], progress: Callable[[int, int, str], None], is_oom: IsOutOfMemory) -> None:
        """Compute all entries that are missing.

        Several processes of a run that share the folder share the work; where they do not, each machine does all of it.

        Args:
            jobs: the entries, the same in all processes.
            progress: a function called with (done, total, what is being done), which may raise to stop.
            is_oom: a function that returns whether an error is an out-of-memory error.

        Raises:
            OutOfMemoryTogether: one of several processes ran out of memory.
            Exception: an entry could not be computed.
        """
        processes = current()
        if self._sharing is None:
            self._sharing = (processes.rank,) if self.folder is None else sharing(self.folder, processes)
        sharers, first = self._sharing, self._sharing[0]
        # Looked up by one of those who share the folder, because the others may have begun to fill it.
        looks = processes.rank == first
        all_missing = processes.gather(
            [number for number, job in enumerate(jobs) if not self.holds(job.key)] if looks else None
        )
        missing = all_missing[first]
        ranked = sorted(missing, key=lambda number: -jobs[number].cost)
        own = sorted(ranked[sharers.index(processes.rank) :: len(sharers)])

        total, of_own = (sum(jobs[number].count for number in some) for some in (missing, own))

        def made() -> int:
            done = 0
            for number in own:
                job = jobs[number]
                progress(done * total // of_own, total, job.what)
                self.get(job.key, job.make)
                done += job.count
                if done == of_own:
                    progress(total, total, job.what)
            return len(own)

        counts = processes.together(made, is_oom)
        if processes.count == 1:
            return
        self.made += sum(counts[rank] for rank in sharers if rank != processes.rank)
        # What another could not write to the folder is only in its own memory.
        lacking = [jobs[number] for number in missing if not self._is_stored(jobs[number].key)]

        def made_alone() -> None:
            for job in lacking:
                self.get(job.key, job.make)

        processes.together(made_alone, is_oom)

    def holds(self, key: str) -> bool:
        """Return whether the entry of a key exists and is intact, and mark it as used so that it is not deleted.

        This is cheap, because no tensor is read.
        """
        if key in self._unwritten or key in self._memory:
            return True
        if not self._is_stored(key):
            return False
        self.found += 1
        path = self._path(key)
        assert path is not None
        _touch(path)
        return True

    def _is_stored(self, key: str) -> bool:
        path = self._path(key)
        if path is None:
            return False
        try:
            with safe_open(path, framework="pt") as file:
                return "structure" in (file.metadata() or {})
        except (OSError, SafetensorError):
            return False

    def _path(self, key: str) -> Path | None:
        digest = hashlib.blake2b(f"{VERSION}|{key}".encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
        return None if self.folder is None else self.folder / digest[:2] / f"{digest}.safetensors"

    def _read(self, key: str) -> Any:
        path = self._path(key)
        if path is None:
            return None
        try:
            with safe_open(path, framework="pt") as file:
                # Copied, because Windows does not allow a memory-mapped file to be replaced.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                structure = json.loads(file.metadata()["structure"])
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return None  # missing or damaged, so it is computed again
        _touch(path)
        return unpacked(structure, tensors)

    def _write(self, key: str, value: Any) -> Any:
        """Store a value, and return it as it is read back: the memory layout of tensors affects the last bits."""
        path = self._path(key)
        tensors: dict[str, Tensor] = {}
        try:
            structure = json.dumps(packed(value, tensors))
        except TypeError:  # it contains something that cannot be stored in a file
            path = None
        if path is None:
            self._unwritten[key] = value
            return value
        value = unpacked(json.loads(structure), tensors)
        try:
            _save(path, tensors, structure)
        except (OSError, SafetensorError) as error:
            if not self._unwritten:
                log.warning(
                    "Encoded examples cannot be saved to %s, so they are kept in memory: %s. This run "
                    "continues, but the next one has to encode them again. Free some disk space, or make the folder "
                    "writable.",
                    self.folder,
                    error,
                )
            self._unwritten[key] = value
        return value

    def _remember(self, key: str, value: Any) -> None:
        if key in self._unwritten:
            return
        size = _bytes(value)
        self._memory[key] = value, size
        self._bytes += size
        while self._bytes > IN_MEMORY and len(self._memory) > 1:
            _, (_, dropped) = self._memory.popitem(last=False)
            self._bytes -= dropped

    def size(self) -> int:
        """Return the size of the cache on disk in bytes."""
        return sum(size for _, size, _ in self._entries())

    def clean(self) -> int:
        """Delete the entries unused for longest until the rest is within the limit.

        Returns:
            The size on disk in bytes afterwards, which is above the limit if more than that was used within a day.
        """
        entries = sorted(self._entries(), key=lambda entry: entry[2])
        total = sum(size for _, size, _ in entries)
        for path, size, used in entries:
            if total <= self.limit or time.time() - used < KEPT_SECONDS:
                break
            with suppress(OSError):  # another program has it open, or the folder is not writable
                path.unlink(missing_ok=True)
                total -= size
        return total

    def _entries(self) -> list[tuple[Path, int, float]]:
        """Return path, bytes and time of last use of each file, including incomplete ones left by killed processes."""
        found = []
        for path in self.folder.glob("??/*") if self.folder is not None else ():
            try:
                facts = path.stat()
            except OSError:  # another run has just deleted it
                continue
            found.append((path, facts.st_size, facts.st_mtime))
        return found


def _save(path: Path, tensors: dict[str, Tensor], structure: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(descriptor)
    try:
        save_file(tensors, temporary, metadata={"structure": structure})
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _touch(path: Path) -> None:
    """Record that a file was used, by its modification time."""
    try:
        if time.time() - path.stat().st_mtime > TOUCH_SECONDS:
            os.utime(path)
    except OSError:  # another run has just deleted it
        pass


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return 64
