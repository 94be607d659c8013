"""Handling of out-of-memory errors (OOM): recognizing them, and trying again what ran out of memory."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

_TEXTS = (
    "out of memory",
    "can't allocate memory",  # torch on the CPU
    "not enough memory",  # the same on Windows
    "bad_alloc",  # C++ in the libraries under torch
    "bad allocation",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
"""Lower-case phrases that mark a RuntimeError as an out-of-memory error."""

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is an out-of-memory error (OOM) of the device or the host."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


def forget_tensors(error: BaseException | None) -> None:
    """Release the local variables that an out-of-memory error keeps alive through its traceback."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def free_memory() -> None:
    """Collect garbage and return torch's unused CUDA memory to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Attempt(Generic[Result]):
    """An attempt to do something in one of several ways.

    Attributes:
        how: what distinguishes it from the others, such as "in tiles".
        action: a function that does it.
    """

    how: str
    action: Callable[[], Result]


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """The outcome of attempts at something that may run out of memory.

    Attributes:
        result: what the last attempt returned, unless it ran out of memory too.
        tried: how each attempt was made, in order.
        error: the out-of-memory error of the last attempt; None if it succeeded.
    """

    result: Result | None
    tried: tuple[str, ...]
    error: Exception | None = None

    def required(self) -> Result:
        """Return the result.

        Raises:
            Exception: the out-of-memory error of the last attempt, if every attempt ran out of memory.
        """
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


def first_that_fits(
    attempts: Iterable[Attempt[Result]],
    is_oom: Callable[[BaseException], bool] = is_out_of_memory,
    free: Callable[[], None] = free_memory,
) -> Outcome[Result]:
    """Make attempts until one does not run out of memory (OOM), freeing memory before each further attempt.

    Args:
        attempts: the attempts, at least one. The next one is asked for only after the one before has run out of memory,
            so a generator may decide on it then, and may raise when no attempt is left. What it raises then has the
            out-of-memory error as its cause.
        is_oom: a function that returns whether an error is an out-of-memory error. Other errors are passed on.
        free: a function that frees unused memory.
    """
    tried: list[str] = []
    error: Exception | None = None
    remaining = iter(attempts)
    while True:
        try:
            attempt = next(remaining, None)
        except Exception as nothing_left:
            raise nothing_left from error
        if tried:
            free()
        if attempt is None:
            return Outcome(None, tuple(tried), error)
        tried.append(attempt.how)
        try:
            return Outcome(attempt.action(), tuple(tried))
        except Exception as raised:
            if not is_oom(raised):
                raise
            forget_tensors(raised)
            error = raised


def twice(action: Callable[[], Result]) -> Iterator[Attempt[Result]]:
    """Yield two attempts at the same action, because what ran out of memory (OOM) may fit after memory was freed."""
    yield Attempt("with the memory that was free", action)
    yield Attempt("after freeing memory", action)
