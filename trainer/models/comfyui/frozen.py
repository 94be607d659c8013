"""Layers of a ComfyUI model that are not trained, or not by themselves, and that gradients pass through.

None holds a cast weight between forward and backward: ComfyUI's memory management may by then have given its pages to
another layer. They fetch it again.
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
    """The layer's weight as it would be used on `like`: on its device, in its dtype, patches applied, dequantized.

    Only valid inside the context.
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
    """A copy of the layer's weight as it is used, on `device`, float32."""
    with torch.no_grad(), fetched_weight(layer, torch.empty((), device=device)) as weight:
        return weight.clone()


def _is_ready(layer: Any, like: Tensor) -> bool:
    """Whether the weight can be used as it lies there, as the layer's own forward then does."""
    if not isinstance(layer, comfy.ops.CastWeightBiasOp):
        return True
    if layer.comfy_cast_weights or layer.weight_function or isinstance(layer.weight, QuantizedTensor):
        return False
    return layer.weight.dtype == like.dtype and layer.weight.device == like.device


class _FrozenLayer(torch.autograd.Function):
    """A linear or convolution layer whose weight has no gradient and is not kept for backward."""

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
    """The gradient of a linear or convolution layer's input, in the dtype of `grad`, its output's."""
    with fetched_weight(layer, grad) as weight:
        for kind, gradient in _CONVOLUTION_INPUT_GRADIENT.items():
            if isinstance(layer, kind):
                if _is_matrix_product(layer, grad, weight):
                    return _gradient_of_columns(layer, input_shape, weight, grad)
                return gradient(input_shape, weight, grad, layer.stride, layer.padding, layer.dilation, layer.groups)
        return grad @ weight


FEW_PIXELS, LARGE_WEIGHT = 256, 2**21


def _is_matrix_product(layer: Any, grad: Tensor, weight: Tensor) -> bool:
    """Whether a convolution has so few pixels, and so large a weight, that on a CPU rearranging the weight for a
    convolution takes longer than the convolution itself (2 to 3 times faster as a matrix product on SD1.5's)."""
    pixels = grad.numel() // grad.shape[1]
    small = grad.device.type == "cpu" and pixels <= FEW_PIXELS and weight.numel() >= LARGE_WEIGHT
    return small and grad.ndim == 4 and layer.groups == 1


def _gradient_of_columns(layer: Any, input_shape: torch.Size, weight: Tensor, grad: Tensor) -> Tensor:
    """A 2-D convolution's input gradient by im2col (Chellapilla et al., 2006)."""
    outputs = grad.shape[1]
    columns = weight.reshape(outputs, -1).t() @ grad.transpose(0, 1).reshape(outputs, -1)
    by_image = columns.view(len(columns), len(grad), -1).transpose(0, 1)
    return F.fold(by_image, input_shape[2:], layer.kernel_size, layer.dilation, layer.padding, layer.stride)


def frozen(layer: nn.Module, forward: Forward) -> Forward:
    """`forward` of a linear or convolution layer, without its weight in the graph of gradients."""

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
    """Norm weights are saved for backward by autograd, so they are copied once; they are small."""
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
    """`forward` of a module that multiplies by parameters or buffers of its own (gates, tables, positions).

    They bear the marks of inference mode, with which autograd refuses to save them for backward, so copies take their
    place while it computes; they are small.
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
