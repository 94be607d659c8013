"""Making the in-place operations of ComfyUI's models safe for autograd.

Flux, HunyuanVideo, LTX-Video and others normalise their hidden state, or pass it to a layer, and then add to it in
place. This also changes the tensors that autograd saved for backward. Autograd normally raises an error then; in a
checkpointed block it does not even notice, and the gradients are silently wrong. Language models write the output of a
block over its input (`out=`), which autograd refuses. The wrappers in this module write the result of such an operation
to new memory, so that saved tensors stay unchanged.
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
    """Moves a tensor to new memory before an operation that would change it in place."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(kwargs.get("out"), Tensor) and any(_has_gradient(arg) for arg in args):
            return _written_to(function, args, **kwargs)
        if function not in _IN_PLACE or not _may_be_kept(args[0], args):
            return function(*args, **kwargs)
        changed: Tensor = args[0]
        # The tensor now points to a copy, so saved tensors keep their values, and their version still matches.
        changed.data = changed.detach().clone()
        with torch.autograd._unsafe_preserve_version_counter(changed):
            return function(*args, **kwargs)

    def __enter__(self) -> Any:
        _thread.active = True
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        _thread.active = False
        super().__exit__(*error)


def _may_be_kept(changed: Tensor, args: tuple[Any, ...]) -> bool:
    """Return whether autograd may have saved the tensor that is about to change.

    Views are exempt, because changing one must change its base as well.
    """
    if changed._is_view() or changed.is_inference() or (changed.is_leaf and changed.requires_grad):
        return False
    return any(_has_gradient(arg) for arg in args)


def _has_gradient(argument: Any) -> bool:
    return isinstance(argument, Tensor) and argument.requires_grad


def _written_to(function: Callable[..., Tensor], args: tuple[Any, ...], *, out: Tensor, **kwargs: Any) -> Tensor:
    """Compute a function whose result is to be written to `out`, which autograd refuses, and write it there after."""
    result = function(*args, **kwargs)
    if out._is_view() or out.is_inference():
        return out.copy_(result)
    out.data = torch.empty_like(result)
    with torch.autograd._unsafe_preserve_version_counter(out):
        return out.copy_(result)


def safe_model(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a forward function of a whole model in which in-place operations leave saved tensors unchanged."""

    def safe_forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        with _CopyBeforeChange(), saved_tensors_hooks(_kept_apart, _taken_back):
            return forward(*args, **kwargs)

    return safe_forward


def safe_block(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a safe forward function of a block that is recomputed in backward, outside its model's forward.

    It needs no hooks for saved tensors, because checkpointing saves them separately.
    """

    def safe_forward(*args: Any, **kwargs: Any) -> Any:
        if getattr(_thread, "active", False):
            return forward(*args, **kwargs)
        with _CopyBeforeChange():
            return forward(*args, **kwargs)

    return safe_forward


def _kept_apart(tensor: Tensor) -> tuple[Tensor, int]:
    """Save a second tensor on the same memory, which stays there when the original moves to a copy."""
    kept = tensor.detach()
    return kept, kept._version


def _taken_back(kept: tuple[Tensor, int]) -> Tensor:
    """Return a saved tensor, after the version check that autograd skips for tensors saved through hooks."""
    tensor, version = kept
    if tensor._version != version:
        raise RuntimeError("A tensor needed to compute gradients was changed in place through a view of it.")
    return tensor
