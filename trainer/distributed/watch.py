"""The watch over the other processes of a run, which notices when one is lost or has failed.

Every process counts up a number of its own in the store that they met at. A process whose number no longer changes is
lost, however it ended and whatever the others wait for, because collectives themselves may wait for ever.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import torch.distributed as dist

from .processes import FailedElsewhere, LostProcess, Processes

if TYPE_CHECKING:
    from torch.distributed import TCPStore

BEAT_SECONDS = 0.5
"""The time between two signs of life."""

SILENT_SECONDS = 18.0
"""The time without a sign of life after which a process is lost. A busy machine may stop one for some seconds."""

SUSPECT_SECONDS = 4.0
"""The same once a connection to some process was closed."""

GRACE_SECONDS = 6.0
"""The time after which a process is ended that cannot stop by itself after another was lost."""

SAVE_SECONDS = 120.0
"""The time that the main process has to save after another was lost; the others have `UNWIND_SECONDS`."""

UNWIND_SECONDS = 20.0

LEAVE_SECONDS = 10.0
"""The most time that the main process waits for the others to see that it has ended."""


class Watch:
    """Gives signs of life of this process, and watches those of the others.

    Args:
        processes: the processes that have met.
        seconds: how long to wait for the others.

    Attributes:
        hosts: the name of the machine of each process.
    """

    def __init__(self, processes: Processes, seconds: float) -> None:
        self._processes = processes
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # A connection of its own, because one that waits for an answer blocks all who share it.
        self._store: TCPStore = dist.TCPStore(
            address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=SILENT_SECONDS)
        )
        self._prefix = f"crucible/{os.environ.get('TORCHELASTIC_RUN_ID', '')}"
        self._keys = [f"{self._prefix}/alive/{rank}" for rank in range(processes.count)]
        hosts = [f"{self._prefix}/host/{rank}" for rank in range(processes.count)]
        self._store.set(self._keys[processes.rank], "0")
        self._store.set(hosts[processes.rank], socket.gethostname())
        self._store.wait([*self._keys, *hosts], timedelta(seconds=seconds))
        self.hosts = tuple(host.decode() for host in self._store.multi_get(hosts))
        self._seen = {rank: ("", time.monotonic()) for rank in range(processes.count) if rank != processes.rank}
        self._lock = threading.Lock()  # the store is used by both threads
        self._suspects = self._is_waiting = self._left = self._told = False
        self._trouble: BaseException | None = None
        self._since = 0.0
        self._answered = time.monotonic()  # the store, which blocks whoever asks it while its process is halted
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()
        # Python's end would break the thread off inside the store, which aborts the whole process.
        atexit.register(self.end)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark that this process does nothing but wait for the others inside the context."""
        self._is_waiting = True
        try:
            yield
        finally:
            self._is_waiting = False

    def check(self) -> None:
        """Raise if another process is lost, has failed or was stopped.

        Raises:
            LostProcess, FailedElsewhere, KeyboardInterrupt: what happened to the other process.
        """
        self._notice_silence()
        if self._trouble is not None:
            if not self._told:
                self._told, self._since = True, time.monotonic()
            raise self._trouble

    def _notice_silence(self) -> None:
        """Take the main process for lost if the store that it holds no longer answers the thread that asks it."""
        if time.monotonic() - self._answered > SILENT_SECONDS:
            self._lose(0, f"the place where all processes meet has not answered for {SILENT_SECONDS:.0f} s")

    def explain(self, error: RuntimeError) -> None:
        """Raise the reason why a collective failed, which takes some seconds to find out.

        Raises:
            LostProcess, FailedElsewhere, KeyboardInterrupt: what happened to the other process.
        """
        self._suspects = True
        with suppress(RuntimeError), self._lock:
            self._store.set(f"{self._prefix}/suspect", "1")  # not all have a connection to the lost one
        until = time.monotonic() + SILENT_SECONDS
        while time.monotonic() < until:
            self.check()
            time.sleep(BEAT_SECONDS / 5)
        raise LostProcess(
            f"The processes of this run can no longer reach each other: {error}. None can train without the others. "
            "Check the network between the machines, and start the same command again: it resumes from the last "
            "checkpoint, with any number of processes."
        ) from error

    def tell(self, kind: str, text: str) -> None:
        """Tell all others that this process ends: "failed" with an error's text, or "stopped" by the user."""
        with suppress(RuntimeError), self._lock:
            self._store.set(f"{self._prefix}/failed", json.dumps([self._processes.rank, kind, text]))

    def leave(self) -> None:
        """Wait until the main process has ended its work, or for the main process until the others know it has.

        Raises:
            LostProcess: the main process is gone.
        """
        self._left, done, gone = True, f"{self._prefix}/done", f"{self._prefix}/gone"
        if self._processes.is_main:
            with self._lock:
                self._store.set(done, "1")
            others = self._processes.count - (1 if self._lost is None else 2)
            until = time.monotonic() + LEAVE_SECONDS
            while time.monotonic() < until:
                with self._lock:
                    if self._store.add(gone, 0) >= others:
                        return
                time.sleep(BEAT_SECONDS / 10)
            return
        while not (isinstance(self._trouble, LostProcess) and self._lost == 0):
            self._notice_silence()
            if self._lock.acquire(timeout=BEAT_SECONDS):
                try:
                    if self._store.check([done]):
                        self._store.add(gone, 1)
                        return
                finally:
                    self._lock.release()
            time.sleep(BEAT_SECONDS / 10)

    def end(self) -> None:
        """End the watch, and wait until it has."""
        self._ended.set()
        self._thread.join(SILENT_SECONDS + BEAT_SECONDS)
        atexit.unregister(self.end)

    _lost: int | None = None

    def _run(self) -> None:
        count = 0
        while not self._ended.wait(BEAT_SECONDS if count else 0):
            count += 1
            try:
                with self._lock:
                    self._store.set(self._keys[self._processes.rank], str(count))
                    values = self._store.multi_get(self._keys)
                    self._suspects = self._suspects or self._store.check([f"{self._prefix}/suspect"])
                    failed = self._store.get(f"{self._prefix}/failed") if self._has_failed() else None
            except RuntimeError:
                self._lose(0, "the place where all processes meet is gone with it")
                failed = None
            else:
                self._answered = time.monotonic()
                self._look(values)
            if failed is not None:
                self._hear(*json.loads(failed))
            self._end_if_stuck()

    def _has_failed(self) -> bool:
        return self._trouble is None and self._store.check([f"{self._prefix}/failed"])

    def _look(self, values: list[bytes]) -> None:
        """Compare the signs of life with the last ones."""
        now, silent = time.monotonic(), SUSPECT_SECONDS if self._suspects else SILENT_SECONDS
        for rank, (before, since) in self._seen.items():
            if (value := values[rank].decode()) != before:
                self._seen[rank] = value, now
            elif now - since > silent:
                self._lose(rank, f"it has given no sign of life for {now - since:.0f} s")

    def _lose(self, rank: int, how: str) -> None:
        if self._trouble is not None:
            return
        self._lost = rank
        name = self._processes.name(rank)
        self._fail(
            LostProcess(
                f"{name[0].upper()}{name[1:]} is lost: {how}. It was killed, its machine has stopped, or the network "
                "was interrupted, and none can train without the others. Look at the end of its own output, and start "
                "the same command again: it resumes from the last checkpoint, with any number of processes."
            )
        )

    def _hear(self, rank: int, kind: str, text: str) -> None:
        if rank == self._processes.rank:
            return
        if kind == "stopped":
            self._fail(KeyboardInterrupt())
            return
        name = self._processes.name(rank)
        self._fail(FailedElsewhere(f"This process stops, because {name} has stopped with an error: {text}"))

    def _fail(self, trouble: BaseException) -> None:
        if self._trouble is None:
            self._trouble, self._since = trouble, time.monotonic()

    def _end_if_stuck(self) -> None:
        """End this process if another is lost and this one hangs in something that cannot be interrupted.

        One that is computing may go on until it next waits for the others, unless it computes together with them.
        """
        if not isinstance(self._trouble, LostProcess) or self._left:
            return
        if self._told:
            limit = SAVE_SECONDS if self._processes.is_main else UNWIND_SECONDS
        elif self._is_waiting or self._processes.joint:
            limit = GRACE_SECONDS
        else:
            return
        if time.monotonic() - self._since > limit:
            sys.stderr.write(f"\nerror: {self._trouble}\n")
            sys.stderr.flush()
            os._exit(1)
