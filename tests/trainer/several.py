"""Several processes that run together, as a launcher would start them, forked so that they have imported everything."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
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
    """

    def __init__(self, count: int, work: Callable[[Processes], None], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._outputs = [folder / f"output_{rank}.txt" for rank in range(count)]
        self._begun = time.monotonic()
        port = free_port()
        self.pids = [_forked(rank, count, port, work, path) for rank, path in enumerate(self._outputs)]

    def send(self, rank: int, number: int) -> None:
        os.kill(self.pids[rank], number)

    def output(self, rank: int) -> str:
        return self._outputs[rank].read_text() if self._outputs[rank].exists() else ""

    def ended(self) -> list[Ended]:
        """Wait for all, and return how they ended."""
        found: dict[int, Ended] = {}
        while len(found) < len(self.pids):
            for rank, pid in enumerate(self.pids):
                if rank in found:
                    continue
                done, status = os.waitpid(pid, os.WNOHANG)
                seconds = time.monotonic() - self._begun
                if done:
                    found[rank] = Ended(os.waitstatus_to_exitcode(status), self.output(rank), seconds)
                elif seconds > LIMIT:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        return [found[rank] for rank in range(len(self.pids))]


def run_together(count: int, work: Callable[[Processes], None], folder: Path) -> None:
    """Do something in several processes, all of which have to succeed."""
    for rank, ended in enumerate(Launch(count, work, folder).ended()):
        assert ended.status == 0, f"process {rank} ended with {ended.status}:\n{ended.output}"


def _forked(rank: int, count: int, port: int, work: Callable[[Processes], None], output: Path) -> int:
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
        with joined() as processes:
            work(processes)
        status = 0
    except CrucibleError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        status = STOPPED
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
