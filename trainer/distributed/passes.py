"""Passes through a base model that is split over the processes of a run, in which all of them have to take part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from .joined import JoinedProcesses


class TroubleElsewhere(Exception):
    """Raised in the midst of passes when another process cannot finish its own; the next exchange tells why."""


class Passes:
    """Passes through a base model. This class is for a model that each process has whole, so that it needs no other."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """Do equally many passes in all processes inside the context; what one cannot finish ends in all of them.

        Raises:
            TroubleElsewhere: the passes of another process have ended with an error.
        """
        yield

    @contextmanager
    def led(self) -> Iterator[None]:
        """Do passes in this process alone inside the context, for which the others `follow`."""
        yield

    def follow(self) -> None:
        """Lend this process's parts of the model to one that is inside `led`, until it leaves that."""

    def largest(self, number: int) -> int:
        """Return the largest of the numbers of all processes inside `together`, at the same place in each.

        Raises:
            TroubleElsewhere: the passes of another process have ended with an error.
        """
        return number


class JointPasses(Passes):
    """Passes through a base model whose blocks are split over several processes.

    A process that has run out of memory (OOM) in the middle of a block would leave the others waiting for its part of
    the next one for ever. So all processes exchange a word before each block is put together, and at the end.

    Args:
        processes: the processes, which all create this object at the same time.
        put_together: puts the block of a number, from 0, together for another process.
        reset: gets the model ready for the next pass, whatever the last one has left behind.
    """

    def __init__(
        self, processes: JoinedProcesses, put_together: Callable[[int], None], reset: Callable[[], None]
    ) -> None:
        self._processes, self._put_together, self._reset = processes, put_together, reset
        # A group of its own, whose exchanges cannot be taken for others.
        self._group = dist.new_group(backend="gloo")
        self._depth = 0
        self._leads = self._follows = self._has_passed = False

    @contextmanager
    def together(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
            if self._depth == 1:
                self._exchange()
        except TroubleElsewhere:
            raise
        except BaseException:  # ComfyUI's Cancel and Ctrl-C are not Exceptions
            if self._depth == 1:
                self._exchange(in_trouble=True)
            raise
        finally:
            self._depth -= 1
            if not self._depth:
                self._forget_order()

    @contextmanager
    def led(self) -> Iterator[None]:
        self._leads = True
        try:
            yield
        finally:
            self._leads = False
            # Passes without gradients leave an order of blocks behind, by which the next backward would fetch blocks
            # that the others know nothing of.
            self._forget_order()
            self._exchange()

    def follow(self) -> None:
        self._follows = True
        try:
            while block := int(self._exchange().max()):
                self._put_together(block - 1)
        finally:
            self._follows = False

    def largest(self, number: int) -> int:
        return int(self._exchange(number).max()) if self._depth else number

    def before_block(self, number: int) -> None:
        """Make sure that all processes will take part in putting together the block of a number, from 0.

        Raises:
            TroubleElsewhere: the passes of another process have ended with an error.
        """
        self._has_passed |= not self._follows
        if self._leads:
            self._exchange(number + 1)
        elif self._depth and not self._follows:
            self._exchange()

    def _forget_order(self) -> None:
        if self._has_passed:  # before its first pass, a model cannot be reset
            self._reset()

    def _exchange(self, number: int = 0, in_trouble: bool = False) -> torch.Tensor:
        """Return the numbers of all processes."""
        word = torch.tensor([number, int(in_trouble)])
        words = torch.empty(2 * self._processes.count, dtype=word.dtype)
        self._processes.wait(dist.all_gather_single(words, word, group=self._group, async_op=True))
        if words[1::2].any() and not in_trouble:
            raise TroubleElsewhere
        return words[::2]
