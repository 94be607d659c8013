"""Joining the processes that `accelerate launch` or torchrun has started for a run."""

from __future__ import annotations

import faulthandler
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import CrucibleError
from ..files.tensor_tree import packed, unpacked
from .launch import are_several
from .passes import JointPasses, TroubleElsewhere
from .processes import (
    FailedElsewhere,
    IsOutOfMemory,
    LostProcess,
    OutOfMemoryTogether,
    Processes,
    Result,
    State,
    set_current,
)
from .watch import Watch

NO_LIMIT = timedelta(days=30)
"""How long a collective may wait. Others may draw samples or save meanwhile, and the watch finds lost processes."""

MEETING_SECONDS = 600
"""How long the processes of a launch wait for each other to start."""

SPIN_SECONDS, NAP_SECONDS = 0.002, 0.0005
"""The time for which a collective is asked for its end without a break, and the break between two questions later."""

CHUNK = 2**28
"""The most bytes that are sent at once."""

EXIT_SECONDS = 5
"""The time after which a process that has lost another is ended once it has told so. Python's own end could hang then,
because the connections to the lost one are closed only at the end of all waiting for it."""


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the other processes of the launch inside the context; a process started alone stays alone.

    A process leaves the context only when the main one has left it, because launchers end all others as soon as one has
    failed. An error in one process raises an error in the others, too.

    Raises:
        CrucibleError: the other processes cannot be reached.
    """
    if not are_several():
        yield Processes()
        return
    processes = JoinedProcesses()
    set_current(processes)
    try:
        yield processes
    except BaseException as error:
        processes.leave(error)
        raise
    else:
        processes.leave(None)
    finally:
        set_current(Processes())


class JoinedProcesses(Processes):
    """The processes of a run that a launcher has started, as the variables RANK, WORLD_SIZE, … describe them.

    Raises:
        CrucibleError: the other processes cannot be reached.
    """

    _settled: BaseException | None = None
    """The last error that is not one of `processes` and was raised here after all had learned of it."""

    def __init__(self) -> None:
        on_cards = torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "false").lower() != "true"
        if on_cards:
            _choose_card()
        try:
            meeting = dist.rendezvous("env://", timeout=timedelta(seconds=MEETING_SECONDS))
            store, self.rank, self.count = next(iter(meeting))
            self._watch = Watch(self, MEETING_SECONDS)
            self.hosts = self._watch.hosts
            with self._watch.waiting():
                dist.init_process_group(
                    "cpu:gloo,cuda:nccl" if on_cards else "gloo",
                    store=store,
                    rank=self.rank,
                    world_size=self.count,
                    timeout=NO_LIMIT,
                )
        except (RuntimeError, ValueError, OSError) as error:
            raise CrucibleError(
                f"The {os.environ.get('WORLD_SIZE')} processes of this launch could not find each other at "
                f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}: {error}. None can train without the "
                "others. Check that the command runs on every machine with the same main_process_ip and "
                "main_process_port, that num_machines and num_processes are the same on all, and that no firewall is "
                "between them."
            ) from error

    def first_per_machine(self, action: Callable[[], Result]) -> Result:
        is_first, results = self.hosts.index(self.hosts[self.rank]) == self.rank, list[Result]()
        self.together(lambda: results.append(action()) if is_first else None)
        return results[0] if is_first else action()

    def gather(self, value: Any) -> list[Any]:
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.long) for _ in range(self.count)]
        self.wait(dist.all_gather(sizes, torch.tensor([len(content)]), async_op=True))
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(content)] = content
        contents = [torch.empty_like(padded) for _ in range(self.count)]
        self.wait(dist.all_gather(contents, padded, async_op=True))
        return [json.loads(one[: int(size)].numpy().tobytes()) for one, size in zip(contents, sizes, strict=True)]

    def from_main(self, value: Any) -> Any:
        return json.loads(self._bytes_from_main(json.dumps(value).encode() if self.is_main else b""))

    def state_from_main(self, state: State) -> State:
        tensors: dict[str, Tensor] = {}
        structure = self.from_main(packed(state, tensors) if self.is_main else None)
        content = self._bytes_from_main(safetensors.torch.save(tensors) if self.is_main else b"")
        received: State = unpacked(structure, safetensors.torch.load(content))
        return received

    def _bytes_from_main(self, content: bytes) -> bytes:
        size = torch.tensor([len(content)])
        self.broadcast(size)
        received = torch.empty(int(size), dtype=torch.uint8)
        if self.is_main and content:
            received.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        for part in received.split(CHUNK):
            self.broadcast(part)
        return received.numpy().tobytes()

    def broadcast(self, tensor: Tensor) -> None:
        self.wait(dist.broadcast(tensor, 0, async_op=True))

    def sum(self, tensor: Tensor) -> None:
        self.wait(dist.all_reduce(tensor, async_op=True))

    def together(self, action: Callable[[], Result], is_oom: IsOutOfMemory = lambda error: False) -> list[Result]:
        try:
            with self.passes.together():
                outcome: list[Any] = ["done", action()]
        except TroubleElsewhere:
            outcome = ["done", None]
        except (OutOfMemoryTogether, FailedElsewhere, LostProcess):
            raise  # the others know already
        except BaseException as error:
            if error is not self._settled:  # by an exchange inside the action, after which the others raise, too
                self.settle(error, is_oom)
            raise
        return self._results(self.gather(outcome), None)

    def by_main(self, action: Callable[[], Result]) -> Result | None:
        if not self.is_main:
            self.passes.follow()
            return None
        with self.passes.led():
            return action()

    def join_passes(self, put_together: Callable[[int], None], reset: Callable[[], None]) -> None:
        if not self.joint:
            self.joint, self.passes = True, JointPasses(self, put_together, reset)

    def settle(self, error: BaseException | None, is_oom: IsOutOfMemory) -> None:
        self._results(self.gather(["done", None] if error is None else _described(error, is_oom)), error)

    def _results(self, outcomes: list[list[Any]], error: BaseException | None) -> list[Any]:
        """Return the results of all processes, or raise what has to be raised in this one.

        An error that can be mended in all processes is raised only if none of them has another one.
        """
        failed = {rank: text for rank, (kind, text) in enumerate(outcomes) if kind == "failed"}
        if failed:
            if self.rank in failed and error is not None:
                self._settled = error
                raise error
            rank = min(failed)
            raise FailedElsewhere(self._failure(rank, failed[rank]))
        if any(kind == "stopped" for kind, _ in outcomes):
            stop = error if outcomes[self.rank][0] == "stopped" and error is not None else KeyboardInterrupt()
            self._settled = stop
            raise stop
        short = {rank: text for rank, (kind, text) in enumerate(outcomes) if kind == "oom"}
        if short:
            told = "; ".join(f"{self.name(rank)}: {text}" for rank, text in short.items())
            raise OutOfMemoryTogether(f"Out of memory in {told}") from error
        return [result for _, result in outcomes]

    def _failure(self, rank: int, text: str) -> str:
        return f"This process stops, because {self.name(rank)} has stopped with an error: {text}"

    def wait(self, work: Any) -> None:
        """Wait for a collective, and raise as soon as another process is known not to take part.

        Raises:
            LostProcess, FailedElsewhere, KeyboardInterrupt: another process is gone, has failed, or was stopped.
        """
        begun = time.monotonic()
        self._watch.check()
        with self._watch.waiting():
            while not work.is_completed():
                self._watch.check()
                if time.monotonic() - begun > SPIN_SECONDS:
                    time.sleep(NAP_SECONDS)
            try:
                work.wait()
            except RuntimeError as error:  # a connection was closed: which one is found out by the watch
                self._watch.explain(error)

    def leave(self, error: BaseException | None) -> None:
        """Leave the other processes, after the main one and at the latest when it is gone.

        Args:
            error: the error that this process ends with; None if it is done.
        """
        kind, text = ("done", "") if error is None else _described(error, lambda _: False)
        knows = isinstance(error, FailedElsewhere | LostProcess)
        if error is not None and not knows:
            self._watch.tell(kind, text)
        with suppress(CrucibleError, KeyboardInterrupt, RuntimeError):
            self._watch.leave()
        if error is None:
            self._watch.end()
            with suppress(RuntimeError):
                dist.destroy_process_group()
        elif not self.is_main or knows:
            # What still waits for a lost process in another thread could keep this one from ending.
            faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115


def _described(error: BaseException, is_oom: IsOutOfMemory) -> list[Any]:
    if not isinstance(error, Exception):  # Ctrl-C, SIGTERM, and ComfyUI's Cancel
        return ["stopped", ""]
    if is_oom(error):
        return ["oom", str(error) or type(error).__name__]
    return ["failed", str(error) if isinstance(error, CrucibleError) else f"{type(error).__name__}: {error}"]


def _choose_card() -> None:
    """Make the card of this process the current one: the one with its number on this machine."""
    number, cards = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= cards:
        raise CrucibleError(
            f"This machine has {cards} graphics card{'s' if cards != 1 else ''}, and this is process {number + 1} on "
            f"it, so two processes would share a card and run out of its memory. Set num_processes to {cards} per "
            "machine, or make more cards visible (CUDA_VISIBLE_DEVICES)."
        )
    torch.cuda.set_device(number)
