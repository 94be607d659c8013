"""Forward passes of ComfyUI layers with an adapter, giving the same results as peft with fewer operations.

peft's own forward is correct for every kind of adapter. Plain LoRA runs on every layer in every step, so it gets a
faster implementation here.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer as PeftLoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional as F

from ...adapters.peft_layers import ADAPTER_NAME, delta_weight
from .frozen import Forward, copied_weight, frozen, input_gradient


def adapted(layer: nn.Module, forward: Forward, adapter: BaseTunerLayer, compute: torch.dtype) -> Forward:
    """Return the forward function of a linear or convolution layer with an adapter.

    Args:
        layer: the frozen layer.
        forward: the layer's own forward function.
        adapter: peft's adapter layer, wrapped around a stand-in whose forward calls `forward`.
        compute: the dtype of the activations; the adapter's weights are float32.
    """
    if not isinstance(adapter, PeftLoraLayer):
        return _computed_by_peft(adapter, compute)
    if adapter.lora_magnitude_vector:
        return _weight_decomposed(layer, forward, adapter)
    down, up = adapter.lora_A[ADAPTER_NAME], adapter.lora_B[ADAPTER_NAME]
    dropout, scale = adapter.lora_dropout[ADAPTER_NAME], adapter.scaling[ADAPTER_NAME]
    if not isinstance(dropout, nn.Identity) or getattr(layer, "groups", 1) != 1:
        return _computed_by_peft(adapter, compute)

    def adapted_forward(x: Tensor) -> Tensor:
        return _LowRank.apply(x, down.weight, up.weight, down, layer, forward, scale)

    return adapted_forward


def _weight_decomposed(layer: Any, forward: Forward, adapter: PeftLoraLayer) -> Forward:
    """Return the forward function of a layer with a DoRA adapter: m / ‖W + ΔW‖ · (W + ΔW) x + bias.

    The norm is treated as a constant in the backward pass (Liu et al. 2024, section 4.3). peft's forward computes the
    norm in the dtype of the activations; in bfloat16 that error changes the model's output already at step 0.
    """
    down, up = adapter.lora_A[ADAPTER_NAME], adapter.lora_B[ADAPTER_NAME].weight
    dropout, scale = adapter.lora_dropout[ADAPTER_NAME], adapter.scaling[ADAPTER_NAME]
    magnitude = adapter.lora_magnitude_vector[ADAPTER_NAME].weight
    base_forward = frozen(layer, forward)

    def adapted_forward(x: Tensor) -> Tensor:
        with torch.no_grad():
            weight = copied_weight(layer, magnitude.device)
            weight += delta_weight(adapter).view(weight.shape)
            norm = torch.linalg.vector_norm(weight.flatten(1), dim=1)
            del weight
        along = (1, -1, 1, 1) if isinstance(down, nn.Conv2d) else (-1,)
        ratio = (magnitude.flatten() / norm).to(x.dtype).view(along)
        if isinstance(down, nn.Conv2d):
            hidden = F.conv2d(dropout(x), down.weight.to(x), None, down.stride, down.padding, down.dilation)
            delta = F.conv2d(hidden, up.to(x))
        else:
            delta = F.linear(F.linear(dropout(x), down.weight.to(x)), up.to(x))
        base = base_forward(x)
        bias = None if layer.bias is None else layer.bias.detach().to(x, copy=True).view(along)
        without_bias = base if bias is None else base - bias
        return base + (ratio - 1) * without_bias + ratio * scale * delta

    return adapted_forward


def _computed_by_peft(adapter: Any, compute: torch.dtype) -> Forward:
    """Return peft's own forward, under autocast unless `compute` is float32.

    Autocast lets the adapter's float32 weights multiply activations in the compute dtype. The frozen layer inside runs
    without it, because it casts its weight itself.
    """
    if compute is torch.float32:
        return adapter.__call__
    adapter.cast_input_dtype_enabled = False
    base_forward = adapter.base_layer.forward

    def without_autocast(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return base_forward(x)

    adapter.base_layer.forward = without_autocast

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=compute):
            return adapter(x)

    return forward


class _LowRank(torch.autograd.Function):
    """Autograd function for `forward(x) + scale * up(down(x))` that saves x and down(x) for backward.

    Shapes for a linear layer: x (..., in), down (rank, in), up (out, rank). For a convolution: x (N, in, H, W),
    down (rank, in, *kernel), up (out, rank, 1, 1). Everything is computed in the dtype of x; the gradients of down and
    up have the dtypes of down and up.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        down: Tensor,
        up: Tensor,
        geometry: nn.Module,
        layer: nn.Module,
        forward: Forward,
        scale: float,
    ) -> Tensor:
        ctx.geometry, ctx.layer, ctx.scale = geometry, layer, scale
        output = forward(x)
        if isinstance(geometry, nn.Conv2d):
            hidden = F.conv2d(x, down.to(x), None, geometry.stride, geometry.padding, geometry.dilation)
            delta = (up.to(x).flatten(1) @ hidden.flatten(2)).view(output.shape)
        else:
            hidden = F.linear(x, down.to(x))
            delta = F.linear(hidden, up.to(x))
        ctx.save_for_backward(x, hidden, down, up)
        return output.add_(delta, alpha=scale)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None, None, None]:
        x, hidden, down, up = ctx.saved_tensors
        gradients = _convolution_gradients if isinstance(ctx.geometry, nn.Conv2d) else _linear_gradients
        grad_x, grad_down, grad_up = gradients(ctx, grad, x, hidden, down.to(x), up.to(x))
        return grad_x, grad_down.to(down), grad_up.to(up), None, None, None, None


_Gradients = tuple[Tensor | None, Tensor, Tensor]


def _linear_gradients(ctx: Any, grad: Tensor, x: Tensor, hidden: Tensor, down: Tensor, up: Tensor) -> _Gradients:
    rows = grad.flatten(0, -2)
    grad_hidden = (rows @ up).mul_(ctx.scale)
    grad_up = (rows.t() @ hidden.flatten(0, -2)).mul_(ctx.scale)
    grad_down = grad_hidden.t() @ x.flatten(0, -2)
    if not ctx.needs_input_grad[0]:
        return None, grad_down, grad_up
    grad_x = input_gradient(ctx.layer, x.shape, grad)
    grad_x.view(rows.shape[0], -1).addmm_(grad_hidden, down)
    return grad_x, grad_down, grad_up


def _convolution_gradients(ctx: Any, grad: Tensor, x: Tensor, hidden: Tensor, down: Tensor, up: Tensor) -> _Gradients:
    pixels = grad.flatten(2)
    grad_hidden = (up.flatten(1).t() @ pixels).mul_(ctx.scale).view(hidden.shape)
    grad_up = (pixels @ hidden.flatten(2).transpose(1, 2)).sum(0).mul_(ctx.scale).view(up.shape)
    geometry, needed = ctx.geometry, ctx.needs_input_grad[0]
    through_adapter, grad_down, _ = torch.ops.aten.convolution_backward(
        grad_hidden,
        x,
        down,
        None,
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        False,
        (0, 0),
        1,
        (needed, True, False),
    )
    if not needed:
        return None, grad_down, grad_up
    return input_gradient(ctx.layer, x.shape, grad).add_(through_adapter), grad_down, grad_up
