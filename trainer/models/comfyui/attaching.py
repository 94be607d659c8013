"""Attaching adapters to a ComfyUI diffusion model without changing its modules.

All clones of a MODEL share one `nn.Module`, and ComfyUI may move or patch its weights by parameter path at any time. No
module can therefore be replaced. Instead, peft's layers are injected into a separate tree of stand-ins, and inside the
`attached` context the `forward` of each original layer is routed through them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...adapters.dropout import RowSeeds
from ...adapters.peft_layers import AdaptedLayer, inject
from ...adapters.spec import AdapterSpec, choose_layers
from ...adapters.targets import is_adaptable
from .adapted import adapted
from .frozen import (
    CONVOLUTION_KINDS,
    NORM_KINDS,
    Forward,
    copied_weight,
    frozen,
    frozen_norm,
    with_ordinary_tensors,
)
from .inplace import safe_block, safe_model


def _stand_in(layer: Any, device: torch.device) -> nn.Module:
    """Return a stand-in that shows peft the shape and forward of a frozen layer, but not its weight."""
    if isinstance(layer, nn.Conv2d):
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        stand_in: Any = nn.Conv2d(**{name: getattr(layer, name) for name in names}, bias=False, device="meta")
    else:
        stand_in = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    # peft reads the device, dtype and shape of new adapters from the base layer's weight.
    one = torch.ones((), dtype=torch.float32, device=device)
    stand_in.weight = nn.Parameter(one.expand(stand_in.weight.shape), requires_grad=False)
    stand_in.forward = frozen(layer, layer.forward)
    return stand_in


def _stand_ins(layers: Mapping[str, nn.Module], device: torch.device) -> nn.Module:
    """Return a module tree with a stand-in for each layer at that layer's path."""
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


def checkpointed_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of a diffusion model: the innermost items of its module lists.

    ComfyUI's UNet calls the items of an `nn.Sequential` in its lists one by one, so these count as lists too. The
    experts of a mixture-of-experts layer are parts of a block, not blocks of their own.
    """
    lists: list[nn.Module] = [
        module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and not path.endswith("experts")
    ]
    lists += [child for parent in (model, *lists) for child in parent.children() if isinstance(child, nn.Sequential)]
    items = {
        item
        for one in lists
        for item in one.children()
        if not isinstance(item, nn.Sequential) and any(True for _ in item.children())
    }
    return [item for item in items if not any(inner in items for inner in item.modules() if inner is not item)]


@dataclass
class Checkpointing:
    """A switch for gradient checkpointing, which recomputes blocks in backward; it may change between steps."""

    on: bool


def _block(forward: Forward, checkpointing: Checkpointing, rows: RowSeeds) -> Forward:
    """Return the forward function of a block for training, with gradient checkpointing while it is on."""

    def recomputed(*args: Any, **kwargs: Any) -> Any:
        # Some blocks add to their input in place, which would corrupt the inputs saved for the recomputation.
        args, kwargs = _with_copies(Tensor, Tensor.clone, args, kwargs)
        return forward(*args, **kwargs)

    def block_forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        if checkpointing.on:
            # ComfyUI writes the current block's number into transformer_options, so the recomputation needs a copy.
            args, kwargs = _with_copies(dict, dict, args, kwargs)
            return checkpoint(recomputed, *args, use_reentrant=False, context_fn=rows.checkpoint_contexts, **kwargs)
        # A block may change its inputs in place, but not the tensors that these are views of.
        args, kwargs = _with_copies(Tensor, lambda x: x.clone() if x._is_view() else x, args, kwargs)
        return forward(*args, **kwargs)

    return block_forward


def _with_copies(
    kind: type, copy: Callable[[Any], Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments, with those that are instances of `kind` copied."""

    def copied(argument: Any) -> Any:
        return copy(argument) if isinstance(argument, kind) else argument

    return tuple(map(copied, args)), {name: copied(argument) for name, argument in kwargs.items()}


@contextmanager
def forward_replaced(module: nn.Module, forward: Forward) -> Iterator[None]:
    """Replace the `forward` of a module inside the context."""
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
    checkpointing: Checkpointing,
    rows: RowSeeds,
) -> Iterator[dict[str, AdaptedLayer]]:
    """Attach adapters to a ComfyUI model inside the context.

    Args:
        model: the module whose layers are trained (`BaseModel.diffusion_model`, or a text encoder).
        spec: rank, alpha, dropout and the choice of layers.
        file_keys: the key in a LoRA file of each layer that ComfyUI's loader recognises, by the layer's path.
        device: the device of the adapters.
        compute: the dtype of the activations.
        checkpointing: the switch for gradient checkpointing of the model's blocks.
        rows: the seeds of the rows that the model computes, for dropout.

    Yields:
        The adapted layers by their key in a LoRA file, with float32 adapter weights on `device`.
    """
    known = ((path, module) for path, module in model.named_modules() if path in file_keys)
    chosen = choose_layers(spec, known, file_keys.__getitem__)
    layers = {path: model.get_submodule(path) for path in chosen}
    tree = _stand_ins(layers, device)
    adapters = inject(tree, chosen, spec.dropout, file_keys.__getitem__, rows)
    tree.train()

    with ExitStack() as stack:
        for path, module in model.named_modules():
            if path in adapters:
                forward = adapted(module, module.forward, adapters[path], compute)
                stack.enter_context(forward_replaced(module, forward))
            elif is_adaptable(module) or isinstance(module, CONVOLUTION_KINDS):
                stack.enter_context(forward_replaced(module, frozen(module, module.forward)))
            elif isinstance(module, NORM_KINDS) and getattr(module, "weight", None) is not None:
                stack.enter_context(forward_replaced(module, frozen_norm(module, module.forward)))
            elif module._parameters or module._buffers:
                stack.enter_context(forward_replaced(module, with_ordinary_tensors(module, module.forward)))
        in_place = not isinstance(model, UNetModel)  # the UNet computes nothing in place
        if in_place:
            stack.enter_context(forward_replaced(model, safe_model(model.forward)))
        for block in checkpointed_blocks(model):
            forward = safe_block(block.forward) if in_place else block.forward
            stack.enter_context(forward_replaced(block, _block(forward, checkpointing, rows)))
        yield {
            file_keys[path]: AdaptedLayer(adapter, partial(copied_weight, layers[path], device))
            for path, adapter in adapters.items()
        }
