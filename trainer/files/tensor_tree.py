"""Conversion of nested lists, tuples and dictionaries of tensors and plain values to JSON and named tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a value in a form for JSON, and add CPU copies of its tensors to `tensors`.

    Raises:
        TypeError: the value contains an object of another type, which cannot be stored.
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().to("cpu").contiguous().clone()  # a file cannot hold shared memory
        return {"tensor": name}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {"dict": {key: packed(item, tensors) for key, item in value.items()}}
        return {"items": [[packed(part, tensors) for part in item] for item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [packed(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"a {type(value).__name__} cannot be stored")


def unpacked(structure: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """Return the value from which `packed` made the structure, with the given tensors themselves in it."""
    ((kind, content),) = structure.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unpacked(item, tensors) for key, item in content.items()}
    if kind == "items":
        return {unpacked(key, tensors): unpacked(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        items = [unpacked(item, tensors) for item in content]
        return items if kind == "list" else tuple(items)
    return content


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return a copy of a nested value in which each tensor is replaced by `change` of it."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: map_tensors(change, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(change, item) for item in value)
    return value


def on_cpu(value: Any) -> Any:
    """Return a copy of a nested value whose tensors are on the CPU and share no memory with the original's."""
    return map_tensors(lambda tensor: tensor.detach().to("cpu", copy=True), value)
