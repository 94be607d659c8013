"""Several processes that run together, as a launcher would start them, forked so that they have imported everything."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from lora_crucible.distributed.joined import joined
from lora_crucible.distributed.processes import Processes
from lora_crucible.errors import CrucibleError

LIMIT = 240.0
"""The seconds after which processes that have not ended are killed."""

STOPPED = 130
"""The exit status of a process that was stopped by Ctrl-C or SIGTERM."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, negative for a signal; what it wrote; and after how many seconds."""

    status: int
    output: str
    seconds: float


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Launch:
    """Processes that do the same, each in the context of the others.

    Args:
        count: how many.
        work: what each does; its errors become its exit status and output.
        folder: a folder for their outputs.
        joins: whether they join each other before; otherwise `work` does, and its result is their exit status.
        started: how many of them are started; None for all.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[Processes], int | None],
        folder: Path,
        *,
        joins: bool = True,
        started: int | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._outputs = [folder / f"output_{rank}.txt" for rank in range(count if started is None else started)]
        self._found: dict[int, Ended] = {}
        self._begun = time.monotonic()
        port = free_port()
        self.pids = [_forked(rank, count, port, work, path, joins) for rank, path in enumerate(self._outputs)]

    def send(self, rank: int, number: int) -> None:
        os.kill(self.pids[rank], number)

    def output(self, rank: int) -> str:
        return self._outputs[rank].read_text() if self._outputs[rank].exists() else ""

    def ended(self) -> list[Ended]:
        """Wait for all, and return how they ended."""
        while len(self._found) < len(self.pids):
            self._look()
        return [self._found[rank] for rank in range(len(self.pids))]

    def ended_but(self, rank: int) -> Ended:
        """Wait for the other one of two, and return how it ended."""
        while 1 - rank not in self._found:
            self._look()
        return self._found[1 - rank]

    def _look(self) -> None:
        for rank, pid in enumerate(self.pids):
            if rank in self._found:
                continue
            done, status = os.waitpid(pid, os.WNOHANG)
            seconds = time.monotonic() - self._begun
            if done:
                self._found[rank] = Ended(os.waitstatus_to_exitcode(status), self.output(rank), seconds)
            elif seconds > LIMIT:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def run_together(count: int, work: Callable[[Processes], int | None], folder: Path, *, joins: bool = True) -> None:
    """Do something in several processes, all of which have to succeed."""
    for rank, ended in enumerate(Launch(count, work, folder, joins=joins).ended()):
        assert ended.status == 0, f"process {rank} ended with {ended.status}:\n{ended.output}"


def _forked(
    rank: int, count: int, port: int, work: Callable[[Processes], int | None], output: Path, joins: bool
) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        with joined() if joins else nullcontext(Processes()) as processes:
            status = work(processes)
        status = status if isinstance(status, int) else 0
    except CrucibleError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        status = STOPPED
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
