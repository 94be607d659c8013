"""How much memory a device has, how much of it is used at most, and which errors say that there is no more."""

from __future__ import annotations

import gc
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import psutil
import torch

INTERVAL = 0.01
"""Seconds between two looks at the memory of the process. A look takes about 20 microseconds."""

CONTAINER = Path("/sys/fs/cgroup")

_TEXTS = (
    "out of memory",
    "can't allocate memory",  # torch on the CPU
    "not enough memory",  # the same on Windows
    "bad_alloc",  # C++ in the libraries under torch
    "bad allocation",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
"""Of a RuntimeError, in lower letters."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the host had no more memory."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


def forget_tensors(error: BaseException | None) -> None:
    """Let go of what an error keeps alive: all variables of the calls that it ended."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def out_of_memory_freed(
    is_lack: Callable[[BaseException], bool] = is_out_of_memory, free: Callable[[], None] = free_memory
) -> Iterator[None]:
    """When memory runs out inside, it is freed, and what comes after goes on; other errors are as ever.

    Args:
        is_lack: whether an error says that memory ran out. free: gives back what can be had again.
    """
    try:
        yield
    except Exception as error:
        if not is_lack(error):
            raise
        forget_tensors(error)
    else:
        return
    free()


def available_memory(device: torch.device) -> int:
    """Bytes that this process can have in all: those that it has, and those that are free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    return _process_memory() + free_host_memory()


def free_host_memory() -> int:
    """Bytes that the system, and the Linux container if this is one, can still give."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = int((CONTAINER / "memory.max").read_text())
        used = int((CONTAINER / "memory.current").read_text())
        facts = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or "max": no limit
        return available
    # A process that goes beyond it is killed. Files that are kept in memory for speed give way.
    return max(0, min(available, limit - used + int(facts.get("inactive_file", 0))))


def _process_memory() -> int:
    return int(psutil.Process().memory_info().rss)


class PeakMeter:
    """The most memory in use since the last `reset`, in bytes.

    On CUDA it is what torch has allocated, exact. Elsewhere it is what the process holds of the host's memory, looked
    at every `INTERVAL` seconds while the meter is open: shorter peaks are missed, and memory counts that was freed but
    not given back to the system.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_exact = device.type == "cuda"
        self._closed = threading.Event()
        self._peak = 0

    def __enter__(self) -> PeakMeter:
        self.reset()
        if not self._is_exact:
            self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_exact:
            self._closed.set()
            self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(INTERVAL):
            self._peak = max(self._peak, _process_memory())

    def reset(self) -> None:
        if self._is_exact:
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._peak = _process_memory()

    @property
    def now(self) -> int:
        return torch.cuda.memory_allocated(self._device) if self._is_exact else _process_memory()

    @property
    def peak(self) -> int:
        if self._is_exact:
            return torch.cuda.max_memory_allocated(self._device)
        self._peak = max(self._peak, _process_memory())
        return self._peak
