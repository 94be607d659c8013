"""The memory that a device has, and the peak of its use."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

import psutil
import torch

INTERVAL = 0.01
"""Seconds between two measurements of the process's memory. One measurement takes about 20 microseconds."""

CONTAINER = Path("/sys/fs/cgroup")
"""The folder in which Linux describes the memory limit of a container."""


def available_memory(device: torch.device) -> int:
    """Return the bytes that this process can use in total: those that it holds and those that are free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    return _process_memory() + free_host_memory()


def free_host_memory() -> int:
    """Return the bytes that the system, and the Linux container if there is one, can still provide."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = int((CONTAINER / "memory.max").read_text())
        used = int((CONTAINER / "memory.current").read_text())
        facts = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or "max": no limit
        return available
    # A process that exceeds the limit is killed. Cached files are dropped before that happens, so they count as free.
    return max(0, min(available, limit - used + int(facts.get("inactive_file", 0))))


def _process_memory() -> int:
    return int(psutil.Process().memory_info().rss)


class PeakMeter:
    """A context manager that measures the most memory in use since the last `reset`, in bytes.

    On CUDA, this is the exact amount that torch has allocated. Elsewhere it is the host memory that the process holds,
    measured every `INTERVAL` seconds while the meter is open: shorter peaks are missed, and memory that was freed but
    not returned to the system is included.
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
        """Start a new measurement of the peak."""
        if self._is_exact:
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._peak = _process_memory()

    @property
    def now(self) -> int:
        """The bytes in use now."""
        return torch.cuda.memory_allocated(self._device) if self._is_exact else _process_memory()

    @property
    def peak(self) -> int:
        """The most bytes in use since the last `reset`."""
        if self._is_exact:
            return torch.cuda.max_memory_allocated(self._device)
        self._peak = max(self._peak, _process_memory())
        return self._peak
