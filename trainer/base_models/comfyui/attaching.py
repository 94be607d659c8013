"""Adapters on a ComfyUI diffusion model, without changing the model.

All clones of a MODEL share one `nn.Module`, and ComfyUI moves and patches its weights by parameter path at any time. So
no module is replaced: peft's layers live in a tree of stand-ins beside the model, and each original layer's `forward`
leads through them while `attached` is open. Frozen layers never hold a cast weight between forward and backward:
ComfyUI's memory management may by then have given its pages to another layer. They fetch it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.ops
import torch
from comfy.quant_ops import QuantizedTensor
from peft import inject_adapter_in_model
from peft.tuners.lora import LoraLayer as PeftLoraLayer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv1d_input, conv2d_input, conv3d_input
from torch.utils.checkpoint import checkpoint

from ...adapters import Adapters, AdapterSpec, adapter_layers, is_adaptable, peft_config, select_layers

Forward = Callable[..., Tensor]

_CONVOLUTION_INPUT_GRADIENT = {
    nn.Conv1d: conv1d_input,
    nn.Conv2d: conv2d_input,
    nn.Conv3d: conv3d_input,
}

_CONVOLUTION_KINDS: tuple[type[nn.Module], ...] = tuple(_CONVOLUTION_INPUT_GRADIENT)


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
        layer = ctx.layer
        with fetched_weight(layer, grad) as weight:
            for kind, input_gradient in _CONVOLUTION_INPUT_GRADIENT.items():
                if isinstance(layer, kind):
                    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
                    return input_gradient(ctx.input_shape, weight, grad, *geometry), None, None
            return grad @ weight, None, None


def _frozen(layer: nn.Module, forward: Forward) -> Forward:
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

_NORM_KINDS: tuple[type[nn.Module], ...] = tuple(_NORMS)


def _frozen_norm(norm: nn.Module, forward: Forward) -> Forward:
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


def _stand_in(layer: Any, device: torch.device) -> nn.Module:
    """What peft sees in place of a frozen layer: its shape, and its forward without its weight."""
    if isinstance(layer, nn.Conv2d):
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        stand_in: Any = nn.Conv2d(**{name: getattr(layer, name) for name in names}, bias=False, device="meta")
    else:
        stand_in = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    # peft creates adapters on the device and in the dtype of the base layer's weight, and asks for its ndim.
    nothing = torch.empty((0,) * stand_in.weight.ndim, dtype=torch.float32, device=device)
    stand_in.weight = nn.Parameter(nothing, requires_grad=False)
    stand_in.forward = _frozen(layer, layer.forward)
    return stand_in


def _stand_ins(layers: Mapping[str, nn.Module], device: torch.device) -> nn.Module:
    """A tree with the stand-in of each layer at the layer's own path."""
    tree = nn.Module()
    for path, layer in layers.items():
        *parents, name = path.split(".")
        branch = tree
        for parent in parents:
            if parent not in branch._modules:
                branch.add_module(parent, nn.Module())
            branch = branch.get_submodule(parent)
        branch.add_module(name, _stand_in(layer, device))
    return tree


def _adapted(layer: PeftLoraLayer, compute: torch.dtype) -> Forward:
    """The forward of a peft layer: in float32 as it is, else under autocast, so that its float32 weights multiply
    activations of the compute dtype. The frozen layer inside it casts for itself."""
    if compute is torch.float32:
        return layer.__call__
    layer.cast_input_dtype_enabled = False
    base_forward = layer.base_layer.forward

    def without_autocast(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return base_forward(x)

    layer.base_layer.forward = without_autocast

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=compute):
            return layer(x)

    return forward


def checkpointed_blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a diffusion model: the innermost items of its module lists.

    ComfyUI's UNet calls the items of the sequences in its lists one by one, so such a sequence counts as a list.
    """
    lists: list[nn.Module] = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    lists += [child for parent in (model, *lists) for child in parent.children() if isinstance(child, nn.Sequential)]
    items = {
        item
        for one in lists
        for item in one.children()
        if not isinstance(item, nn.Sequential) and any(True for _ in item.children())
    }
    return [item for item in items if not any(inner in items for inner in item.modules() if inner is not item)]


def _checkpointed(forward: Forward) -> Forward:
    def block(*args: Any, **kwargs: Any) -> Any:
        # Some blocks add to their input in place, which would spoil what backward starts from.
        args, kwargs = _with_copies(Tensor, Tensor.clone, args, kwargs)
        return forward(*args, **kwargs)

    def checkpointed_forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # ComfyUI writes the current block's number into transformer_options; backward must see today's.
        args, kwargs = _with_copies(dict, dict, args, kwargs)
        return checkpoint(block, *args, use_reentrant=False, **kwargs)

    return checkpointed_forward


def _with_copies(
    kind: type, copy: Callable[[Any], Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, with those of a kind copied."""

    def copied(argument: Any) -> Any:
        return copy(argument) if isinstance(argument, kind) else argument

    return tuple(map(copied, args)), {name: copied(argument) for name, argument in kwargs.items()}


@contextmanager
def _forward_replaced(module: nn.Module, forward: Forward) -> Iterator[None]:
    missing = object()
    previous = module.__dict__.get("forward", missing)
    module.forward = forward
    try:
        yield
    finally:
        if previous is missing:
            del module.forward
        else:
            module.forward = previous


@contextmanager
def attached(
    model: nn.Module,
    spec: AdapterSpec,
    file_keys: Mapping[str, str],
    device: torch.device,
    compute: torch.dtype,
    gradient_checkpointing: bool,
) -> Iterator[Adapters]:
    """LoRA layers on a ComfyUI diffusion model, on `device`, in float32.

    Args:
        model: the module whose layers are trained (`BaseModel.diffusion_model`).
        spec: rank, alpha, dropout and which layers.
        file_keys: the key in a LoRA file of each layer that ComfyUI's loader knows, by path.
        compute: the dtype of the activations.
    """
    targets = select_layers(((path, m) for path, m in model.named_modules() if path in file_keys), spec.target_modules)
    layers = {path: model.get_submodule(path) for path in targets}
    tree = _stand_ins(layers, device)
    inject_adapter_in_model(peft_config(spec, targets), tree, adapter_name="default")
    tree.train()
    adapted = adapter_layers(tree)

    with ExitStack() as stack:
        for path, module in model.named_modules():
            if path in adapted:
                stack.enter_context(_forward_replaced(module, _adapted(adapted[path], compute)))
            elif is_adaptable(module) or isinstance(module, _CONVOLUTION_KINDS):
                stack.enter_context(_forward_replaced(module, _frozen(module, module.forward)))
            elif isinstance(module, _NORM_KINDS) and getattr(module, "weight", None) is not None:
                stack.enter_context(_forward_replaced(module, _frozen_norm(module, module.forward)))
        if gradient_checkpointing:
            for block in checkpointed_blocks(model):
                stack.enter_context(_forward_replaced(block, _checkpointed(block.forward)))
        yield Adapters({file_keys[path]: layer for path, layer in adapted.items()}, spec.alpha)
