"""Frozen layers of a ComfyUI model that gradients pass through.

None of them keeps a cast weight from forward to backward, because ComfyUI's memory management may reuse its memory for
another layer in between. Backward fetches the weight again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.ops
import torch
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv1d_input, conv2d_input, conv3d_input

Forward = Callable[..., Tensor]

_CONVOLUTION_INPUT_GRADIENT = {
    nn.Conv1d: conv1d_input,
    nn.Conv2d: conv2d_input,
    nn.Conv3d: conv3d_input,
}

CONVOLUTION_KINDS: tuple[type[nn.Module], ...] = tuple(_CONVOLUTION_INPUT_GRADIENT)


@contextmanager
def fetched_weight(layer: Any, like: Tensor) -> Iterator[Tensor]:
    """Fetch a layer's weight with its patches applied, dequantized, in the dtype and on the device of `like`.

    The tensor is only valid inside the context.
    """
    if _is_ready(layer, like):
        yield layer.weight
        return
    weight, bias, stream = comfy.ops.cast_bias_weight(
        layer, dtype=like.dtype, device=like.device, bias_dtype=like.dtype, offloadable=True
    )
    try:
        yield weight.dequantize() if isinstance(weight, QuantizedTensor) else weight
    finally:
        comfy.ops.uncast_bias_weight(layer, weight, bias, stream)


def copied_weight(layer: Any, device: torch.device) -> Tensor:
    """Return a float32 copy of the layer's weight on `device`, with its patches applied."""
    with torch.no_grad(), fetched_weight(layer, torch.empty((), device=device)) as weight:
        return weight.clone()


def _is_ready(layer: Any, like: Tensor) -> bool:
    """Return whether the weight can be used without casting or patching, as the layer's own forward then does."""
    if not isinstance(layer, comfy.ops.CastWeightBiasOp):
        return True
    if layer.comfy_cast_weights or layer.weight_function or isinstance(layer.weight, QuantizedTensor):
        return False
    return layer.weight.dtype == like.dtype and layer.weight.device == like.device


class _FrozenLayer(torch.autograd.Function):
    """Autograd function of a linear or convolution layer whose weight has no gradient and is not saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Module, forward: Forward) -> Tensor:
        ctx.layer = layer
        ctx.input_shape = x.shape
        return forward(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return input_gradient(ctx.layer, ctx.input_shape, grad), None, None


def input_gradient(layer: Any, input_shape: torch.Size, grad: Tensor) -> Tensor:
    """Return the gradient of a linear or convolution layer's input.

    Args:
        layer: the frozen layer.
        input_shape: the shape of the layer's input.
        grad: the gradient of the layer's output; the result has the same dtype.
    """
    with fetched_weight(layer, grad) as weight:
        for kind, gradient in _CONVOLUTION_INPUT_GRADIENT.items():
            if isinstance(layer, kind):
                if _is_matrix_product(layer, grad, weight):
                    return _gradient_of_columns(layer, input_shape, weight, grad)
                return gradient(input_shape, weight, grad, layer.stride, layer.padding, layer.dilation, layer.groups)
        return grad @ weight


FEW_PIXELS, LARGE_WEIGHT = 256, 2**21
"""The most pixels and the fewest weights with which a convolution's gradient is computed as a matrix product."""


def _is_matrix_product(layer: Any, grad: Tensor, weight: Tensor) -> bool:
    """Return whether a convolution's gradient is computed faster as a matrix product.

    On a CPU, with few pixels and a large weight, rearranging the weight takes longer than the convolution itself. For
    such layers of SD1.5, a matrix product is 2 to 3 times faster.
    """
    pixels = grad.numel() // grad.shape[1]
    small = grad.device.type == "cpu" and pixels <= FEW_PIXELS and weight.numel() >= LARGE_WEIGHT
    return small and grad.ndim == 4 and layer.groups == 1


def _gradient_of_columns(layer: Any, input_shape: torch.Size, weight: Tensor, grad: Tensor) -> Tensor:
    """Compute the input gradient of a 2-D convolution by im2col (Chellapilla et al., 2006)."""
    outputs = grad.shape[1]
    columns = weight.reshape(outputs, -1).t() @ grad.transpose(0, 1).reshape(outputs, -1)
    by_image = columns.view(len(columns), len(grad), -1).transpose(0, 1)
    return F.fold(by_image, input_shape[2:], layer.kernel_size, layer.dilation, layer.padding, layer.stride)


def frozen(layer: nn.Module, forward: Forward) -> Forward:
    """Return a forward function of a linear or convolution layer that keeps its weight out of autograd's graph."""

    def frozen_forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad and not args and not kwargs:
            return _FrozenLayer.apply(x, layer, forward)
        return forward(x, *args, **kwargs)

    return frozen_forward


_NORMS: dict[type, Callable[[Any, Tensor, Tensor | None, Tensor | None], Tensor]] = {
    nn.GroupNorm: lambda norm, x, weight, bias: F.group_norm(x, norm.num_groups, weight, bias, norm.eps),
    nn.LayerNorm: lambda norm, x, weight, bias: F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps),
    nn.RMSNorm: lambda norm, x, weight, _: F.rms_norm(x, norm.normalized_shape, weight, norm.eps),
}

NORM_KINDS: tuple[type[nn.Module], ...] = tuple(_NORMS)


def frozen_norm(norm: nn.Module, forward: Forward) -> Forward:
    """Return a forward function of a norm layer that computes with copies of its weights.

    Autograd saves norm weights for backward, and ComfyUI may reuse their memory by then. The copies are made once per
    device and dtype, and are small.
    """
    function = next(function for kind, function in _NORMS.items() if isinstance(norm, kind))
    copies: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor | None]] = {}

    def norm_forward(x: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            return forward(x)
        if (x.device, x.dtype) not in copies:
            copies[x.device, x.dtype] = _copied(norm, x)
        return function(norm, x, *copies[x.device, x.dtype])

    return norm_forward


def _copied(norm: Any, like: Tensor) -> tuple[Tensor, Tensor | None]:
    if not isinstance(norm, comfy.ops.CastWeightBiasOp):
        bias = getattr(norm, "bias", None)
        return norm.weight.to(like).clone(), None if bias is None else bias.to(like).clone()
    weight, bias, stream = comfy.ops.cast_bias_weight(norm, like, offloadable=True)
    try:
        return weight.clone(), None if bias is None else bias.clone()
    finally:
        comfy.ops.uncast_bias_weight(norm, weight, bias, stream)


def with_ordinary_tensors(module: nn.Module, forward: Forward) -> Forward:
    """Return a forward function of a module with parameters or buffers of its own (gates, tables, positions).

    Autograd refuses to save tensors that were created in inference mode, so copies replace them during the forward.
    The copies are small.
    """

    def ordinary_forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        parameters, buffers = dict(module._parameters), dict(module._buffers)
        for name, parameter in parameters.items():
            if parameter is not None and parameter.is_inference():
                module._parameters[name] = nn.Parameter(parameter.clone(), requires_grad=False)
        for name, buffer in buffers.items():
            if buffer is not None and buffer.is_inference():
                module._buffers[name] = buffer.clone()
        try:
            return forward(*args, **kwargs)
        finally:
            module._parameters.update(parameters)
            module._buffers.update(buffers)

    return ordinary_forward
