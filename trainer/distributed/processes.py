"""The processes of a run, and how they talk: every one takes part in every exchange, in the same order.

Imports only the standard library, because the command line asks for the processes before it needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CrucibleError
from .passes import Passes

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")
State = TypeVar("State")

IsOutOfMemory = Callable[[BaseException], bool]
"""A function that returns whether an error is an out-of-memory error (OOM)."""


class OutOfMemoryTogether(MemoryError):
    """Raised in all processes of a run after an exchange that some of them could not do for lack of memory (OOM)."""


class FailedElsewhere(CrucibleError):
    """Raised in the other processes of a run when one of them stopped with an error."""


class LostProcess(CrucibleError):
    """Raised in the other processes of a run when one of them is no longer there."""


class Processes:
    """The processes of a run. This class is for a run with a single one; see `joined` for several.

    Attributes:
        rank: the number of this process, from 0.
        count: the number of processes.
        hosts: the name of the machine of each process; empty for a single process.
        joint: whether the base model is split over the processes, so that all of them have to take part in each of its
            passes. The session of such a base model sets it by `join_passes`.
        passes: the passes through the base model.
    """

    rank = 0
    count = 1
    joint = False
    hosts: tuple[str, ...] = ()
    passes = Passes()

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files of the run, draws its samples and talks to the user."""
        return self.rank == 0

    def name(self, rank: int) -> str:
        """Return the name of a process for the user, such as "process 1 of 2 (on machine)"."""
        host = f" (on {self.hosts[rank]})" if rank < len(self.hosts) else ""
        return f"process {rank} of {self.count}{host}"

    @property
    def on_this_machine(self) -> int:
        """The number of processes on this machine."""
        return self.hosts.count(self.hosts[self.rank]) if self.hosts else 1

    def first_per_machine(self, action: Callable[[], Result]) -> Result:
        """Do something in one process of each machine and then in the others, which find what it has left on disk."""
        return action()

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of their ranks.

        Args:
            value: anything that JSON can hold.
        """
        return [value]

    def from_main(self, value: Any) -> Any:
        """Return the main process's value; those of the others are not used.

        Args:
            value: anything that JSON can hold.
        """
        return value

    def state_from_main(self, state: State) -> State:
        """Return the main process's state: nested lists, tuples and dicts of CPU tensors and plain values."""
        return state

    def broadcast(self, tensor: Tensor) -> None:
        """Give a tensor, in place, the values that it has in the main process; it has the same shape in all of them."""

    def sum(self, tensor: Tensor) -> None:
        """Add up a tensor over all processes, in place; it has the same shape in all of them."""

    def together(self, action: Callable[[], Result], is_oom: IsOutOfMemory = lambda error: False) -> list[Result]:
        """Do something in every process, and return all results in the order of the ranks, or fail in all of them.

        Args:
            action: a function that does the part of this process; the result is anything that JSON can hold.
            is_oom: a function that returns whether an error is an out-of-memory error.

        Raises:
            OutOfMemoryTogether: at least one of several processes ran out of memory, and none failed otherwise.
            FailedElsewhere: another process failed.
            BaseException: what this process's own action raised.
        """
        return [action()]

    def by_main(self, action: Callable[[], Result]) -> Result | None:
        """Do something in the main process only, and return what it gives there, or None in the others.

        The others wait for the end of it if the main process needs their parts of the base model for it.
        """
        return action()

    def join_passes(self, put_together: Callable[[int], None], reset: Callable[[], None]) -> None:
        """Do all passes through the base model together from now on, because it is split over several processes.

        Args:
            put_together, reset: as for `JointPasses`.
        """
        raise NotImplementedError("a single process has nothing to split a model over")

    def settle(self, error: BaseException | None, is_oom: IsOutOfMemory) -> None:
        """Raise in every process after an exchange that at least one of them has to raise an error after.

        Args:
            error: what this process raised before the exchange; None if it is another's.
            is_oom: a function that returns whether an error is an out-of-memory error.

        Raises:
            BaseException: the same as for `together`.
        """
        if error is not None:
            raise error


_current = Processes()


def current() -> Processes:
    """Return the processes that train together with this one; a single process unless it has `joined` others."""
    return _current


def set_current(processes: Processes) -> None:
    """Set what `current` returns."""
    global _current
    _current = processes
