"""Sums that ComfyUI's models compute in place.

Flux, HunyuanVideo, LTX-Video and others norm their hidden state, or give it to a layer, and then add to it in place.
What was kept of it for backward changes along: autograd refuses that, and in a block that is computed again for
backward it does not even notice, so that the gradients are wrong. While a model computes here, such a sum goes to
memory of its own, and what was kept stays as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

_IN_PLACE = frozenset({Tensor.add_, Tensor.sub_, Tensor.mul_, Tensor.div_, Tensor.addcmul_, Tensor.addcdiv_})
_thread = threading.local()


class _CopyBeforeChange(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function not in _IN_PLACE or not _may_be_kept(args[0], args):
            return function(*args, **(kwargs or {}))
        changed: Tensor = args[0]
        # The tensor moves to a copy, so what was kept does not change, and is no older version.
        changed.data = changed.detach().clone()
        with torch.autograd._unsafe_preserve_version_counter(changed):
            return function(*args, **(kwargs or {}))

    def __enter__(self) -> Any:
        _thread.active = True
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        _thread.active = False
        super().__exit__(*error)


def _may_be_kept(changed: Tensor, args: tuple[Any, ...]) -> bool:
    """Whether autograd may keep the tensor that is about to change. A view must change what it is a view of."""
    if changed._is_view() or changed.is_inference() or (changed.is_leaf and changed.requires_grad):
        return False
    return any(isinstance(arg, Tensor) and arg.requires_grad for arg in args)


def safe_model(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` of a whole model."""

    def safe_forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        with _CopyBeforeChange(), saved_tensors_hooks(_kept_apart, _taken_back):
            return forward(*args, **kwargs)

    return safe_forward


def safe_block(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` of a block that is computed again for backward, outside its model's. Checkpointing keeps apart."""

    def safe_forward(*args: Any, **kwargs: Any) -> Any:
        if getattr(_thread, "active", False):
            return forward(*args, **kwargs)
        with _CopyBeforeChange():
            return forward(*args, **kwargs)

    return safe_forward


def _kept_apart(tensor: Tensor) -> tuple[Tensor, int]:
    """What autograd keeps: another tensor on the same memory, which stays there when the first one moves."""
    kept = tensor.detach()
    return kept, kept._version


def _taken_back(kept: tuple[Tensor, int]) -> Tensor:
    """With the check that autograd leaves out for tensors that are kept in another way."""
    tensor, version = kept
    if tensor._version != version:
        raise RuntimeError("A tensor that is needed for the gradients was changed in place, as part of another.")
    return tensor
