"""What the frozen encoders made of images and captions, on disk, so that it is made once.

One safetensors file per entry, named by a hash of everything that it depends on: an entry is either right or not
there. Files are written beside and renamed, so one that is there is whole, and several runs may share a folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files.tensor_tree import packed, unpacked

log = logging.getLogger(__name__)

VERSION = 1
"""Of how entries are made. A change of preprocessing must change it."""

IN_MEMORY = 2**28
"""Bytes of entries that are kept in memory."""

KEPT_SECONDS = 24 * 3600
"""Entries that were used within a day are never deleted: a run may be using them."""

TOUCH_SECONDS = 3600


def cache_folder(runs_folder: Path) -> Path:
    """Where all runs of a folder share what need not be made again."""
    return runs_folder / ".cache"


class TensorCache:
    """Nested lists, tuples and dictionaries of tensors and plain values, by key.

    Args:
        folder: made when something is stored; None keeps everything in memory.
        limit: bytes on disk above which `clean` deletes what was not used for longest.

    Attributes:
        made, found: how many entries were made anew, and found by `holds`.
    """

    def __init__(self, folder: Path | None, limit: int = 0) -> None:
        self.folder = folder
        self.limit = limit
        self.made = 0
        self.found = 0
        self._memory: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._unwritten: dict[str, Any] = {}

    def get(self, key: str, make: Callable[[], Any] | None = None) -> Any:
        """The entry of a key; what `make` gives where there is none, which is then stored.

        Raises:
            KeyError: there is none, and no `make`.
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

    def holds(self, key: str) -> bool:
        """Whether the entry is there and whole, and so will stay. Cheap: reads no tensor."""
        path = self._path(key)
        if key in self._unwritten or key in self._memory:
            return True
        if path is None:
            return False
        try:
            with safe_open(path, framework="pt") as file:
                whole = "structure" in (file.metadata() or {})
        except (OSError, SafetensorError):
            return False
        self.found += whole
        _touch(path)
        return whole

    def _path(self, key: str) -> Path | None:
        digest = hashlib.blake2b(f"{VERSION}|{key}".encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
        return None if self.folder is None else self.folder / digest[:2] / f"{digest}.safetensors"

    def _read(self, key: str) -> Any:
        path = self._path(key)
        if path is None:
            return None
        try:
            with safe_open(path, framework="pt") as file:
                # Copies, because memory that is mapped to the file keeps it from being replaced on Windows.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                structure = json.loads(file.metadata()["structure"])
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return None  # not there, or damaged: it is made anew
        _touch(path)
        return unpacked(structure, tensors)

    def _write(self, key: str, value: Any) -> Any:
        """Returns the value as it will be read: the layout of its tensors in memory decides over their last bits."""
        path = self._path(key)
        tensors: dict[str, Tensor] = {}
        try:
            structure = json.dumps(packed(value, tensors))
        except TypeError:  # something that no file can hold
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
                    "What was encoded cannot be kept in %s, and stays in memory: %s. The run goes on, and the next "
                    "one encodes it again. Free some space on that disk, or allow writing there.",
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
        """Bytes on disk."""
        return sum(size for _, size, _ in self._entries())

    def clean(self) -> int:
        """Deletes the entries that were not used for longest, until the rest is within the limit.

        Returns:
            Bytes on disk afterwards; above the limit when more than that was used within a day.
        """
        entries = sorted(self._entries(), key=lambda entry: entry[2])
        total = sum(size for _, size, _ in entries)
        for path, size, used in entries:
            if total <= self.limit or time.time() - used < KEPT_SECONDS:
                break
            with suppress(OSError):  # another program has it open, or writing there is not permitted
                path.unlink(missing_ok=True)
                total -= size
        return total

    def _entries(self) -> list[tuple[Path, int, float]]:
        """Path, bytes and time of last use of each file, also of those that a killed process left half-written."""
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
    """Note that the file was used."""
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
