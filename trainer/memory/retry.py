"""What is done beside the training steps, and must not end a run by lack of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..hardware.device_memory import out_of_memory_freed
from ..models.base import BaseModel

Result = TypeVar("Result")


def again(base_model: BaseModel, action: Callable[[], Result]) -> Result:
    """What `action` gives. When it runs out of memory, memory is freed and it is done once more."""
    with out_of_memory_freed(base_model.is_out_of_memory, base_model.free_memory):
        return action()
    return action()


def retried(
    base_model: BaseModel, action: Callable[[], Result], make_smaller: Callable[[], bool] = lambda: False
) -> Result | None:
    """What `action` gives. When it runs out of memory, memory is freed and it is done again: once, and as often as
    `make_smaller` says that it now needs less. None when that was not enough."""
    done_again = False
    while True:
        with out_of_memory_freed(base_model.is_out_of_memory, base_model.free_memory):
            return action()
        if not make_smaller():
            if done_again:
                return None
            done_again = True
