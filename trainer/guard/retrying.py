"""What is done beside the training steps, and must not end a run by lack of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..base_models.base import BaseModel
from ..device_memory import forget_tensors

Result = TypeVar("Result")


def again(base_model: BaseModel, action: Callable[[], Result]) -> Result:
    """What `action` gives. When it runs out of memory, memory is freed and it is done once more."""
    try:
        return action()
    except Exception as error:
        if not base_model.is_out_of_memory(error):
            raise
        forget_tensors(error)
    base_model.free_memory()
    return action()


def retried(
    base_model: BaseModel, action: Callable[[], Result], make_smaller: Callable[[], bool] = lambda: False
) -> Result | None:
    """What `action` gives. When it runs out of memory, memory is freed and it is done again: once, and as often as
    `make_smaller` says that it now needs less. None when that was not enough."""
    done_again = False
    while True:
        try:
            return action()
        except Exception as error:
            if not base_model.is_out_of_memory(error):
                raise
            forget_tensors(error)
        base_model.free_memory()
        if not make_smaller():
            if done_again:
                return None
            done_again = True
