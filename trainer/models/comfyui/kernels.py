"""A backward for a fused kernel that has none, but that ComfyUI uses in training too.

`model_management.in_training` makes most models avoid fused kernels. Cosmos-Predict2 and Anima still use one for the
norm and rotary embedding of queries and keys, so its derivative is registered with PyTorch here.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_KERNEL = "comfy_kitchen::rms_rope_split_half"


@functools.cache
def give_backward() -> None:
    """Register the kernel's derivative with PyTorch, once per process. The kernel's output stays the same."""
    namespace, name = _KERNEL.split("::")
    if hasattr(getattr(torch.ops, namespace), name):
        torch.library.register_autograd(_KERNEL, _backward, setup_context=_keep_inputs)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, rotations, q_scale, k_scale, ctx.epsilon, ctx.rotated = inputs
    # Copies of the norm weights, because ComfyUI may reuse their memory before backward.
    scales = [scale.clone() for scale in (q_scale, q_scale if k_scale is None else k_scale)]
    ctx.save_for_backward(q, k, rotations, *scales)


def _backward(ctx: Any, grad_q: Tensor, grad_k: Tensor) -> tuple[Tensor | None, ...]:
    q, k, rotations, *scales = ctx.saved_tensors
    gradients = []
    for x, scale, grad in zip((q, k), scales, (grad_q, grad_k), strict=True):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            output = normed_and_rotated(x, rotations, scale, ctx.epsilon, ctx.rotated)
        gradients += torch.autograd.grad(output, x, grad)
    return *gradients, None, None, None, None, None


def normed_and_rotated(x: Tensor, rotations: Tensor, scale: Tensor, epsilon: float, rotated: int = 0) -> Tensor:
    """Apply RMS norm and then rotary position embedding to queries or keys.

    Args:
        x: queries or keys (..., width); the result has the same dtype.
        rotations: matrices (..., rotated / 2, 2, 2); the i-th rotates entries i and i + rotated / 2 of a row.
        scale: the weight of the norm (width,).
        epsilon: the value added to the mean square for numerical stability.
        rotated: the number of leading entries to rotate; 0 rotates all.
    """
    rotated = rotated or x.shape[-1]
    normed = F.rms_norm(x, x.shape[-1:], scale.to(x), epsilon)
    turned, straight = normed[..., :rotated], normed[..., rotated:]
    pairs = torch.stack(turned.to(rotations.dtype).chunk(2, dim=-1), dim=-1).unsqueeze(-2)
    halves = (rotations * pairs).sum(-1).unbind(-1)
    return torch.cat([half.to(x.dtype) for half in halves] + [straight], dim=-1)
