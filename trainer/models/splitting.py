"""Splitting the frozen blocks of a base model over the processes of a run, for models that are too big for one card.

PyTorch's FSDP keeps a part of each block's weights in every process, and puts a block together just before it computes.
Everything outside the blocks (embeddings, the last layer) and the adapters stay whole in every process, so gradients,
the optimizer, checkpoints and LoRA files are those of a run whose processes have the whole base model each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..distributed.passes import JointPasses
from ..distributed.processes import current


def split_blocks(model: nn.Module, root: nn.Module, device: torch.device) -> None:
    """Split the blocks of a model over all processes, with the weights that the main process has.

    The device never holds more than the parts of this process, what is not split, and one whole block.

    Args:
        model: the frozen model, without adapters. In the main process it has its weights, on any device; in the others
            it may be on the meta device.
        root: the part of it that calls all blocks, and that is always called as a whole.
        device: the device of this process.
    """
    # Not every torch has these.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    processes = current()
    dtypes = processes.from_main({name: str(tensor.dtype) for name, tensor in _tensors(model)})
    for name, tensor in _tensors(model):
        tensor.data = tensor.data.to(getattr(torch, dtypes[name].removeprefix("torch.")))
    mesh = init_device_mesh(device.type, (processes.count,))
    blocks = blocks_of(root)
    for number, block in enumerate(blocks):
        _take_weights(block, device)
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
        cast(FSDPModule, block).set_custom_all_gather(cast(Any, _Gather(number)))
    _take_weights(model, device)
    # The root has no weights of its own; through it, the weights of a block arrive while the one before it computes.
    fully_shard(root, mesh=mesh, reshard_after_forward=True, ignored_params=set(root.parameters()))

    def put_together(number: int) -> None:
        block = cast(FSDPModule, blocks[number])
        block.unshard()
        block.reshard()

    processes.join_passes(put_together, cast(FSDPModule, root).reset_iter_state)


def blocks_of(root: nn.Module) -> list[nn.Module]:
    """Return the blocks that a model consists of: those that its class says to keep in one piece, or the items of its
    largest list of modules."""
    names = set(getattr(root, "_no_split_modules", None) or ())
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in root.modules():
        if module not in inside and type(module).__name__ in names and module is not root:
            found.append(module)
            inside.update(module.modules())
    if found:
        return found
    lists = [list(module) for module in root.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda modules: sum(size_of(module.parameters()) for module in modules), default=[])


def split_parameters(root: nn.Module, parameters: int, count: int) -> int:
    """Return how many of a model's parameters a process needs room for at a time once its blocks are split.

    These are its part of the blocks, what is not split, and two whole blocks: the one that computes and the next.

    Args:
        root: the part of the model that calls all blocks; it may be on the meta device.
        parameters: the number of all parameters of the model.
        count: the number of processes.
    """
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in blocks_of(root)]
    return parameters - sum(sizes) + -(-sum(sizes) // count) + 2 * max(sizes, default=0)


def size_of(weights: Iterable[Tensor]) -> int:
    """Return the bytes of weights, of which other processes may hold parts."""
    return sum(weight.numel() * weight.element_size() for weight in weights)


def size_here(weights: Iterable[Tensor]) -> int:
    """Return the bytes of the parts of weights that this process holds."""
    return size_of(weight.to_local() if is_part(weight) else weight for weight in weights)


def is_part(weight: Tensor) -> TypeGuard[Any]:
    """Return whether this process holds only a part of a weight."""
    return hasattr(weight, "to_local")


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return parameters and buffers, those of several names once, except those that are split."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return [(name, tensor) for name, tensor in named if not is_part(tensor)]


def _take_weights(module: nn.Module, device: torch.device) -> None:
    """Give a module, on the device, the weights that the main process has."""
    taken: dict[Tensor, Any] = {}
    for _, tensor in _tensors(module):
        whole = torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.detach().to(device).contiguous()
        current().broadcast(whole)
        taken[tensor] = nn.Parameter(whole, requires_grad=False) if isinstance(tensor, nn.Parameter) else whole
    for part in module.modules():
        tables: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for table in tables:
            table.update({name: taken[tensor] for name, tensor in table.items() if tensor in taken})


class _Gather:
    """The putting together of a block, before which the processes make sure that all of them will take part.

    Args:
        number: the number of the block, from 0.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False) -> Any:
        cast(JointPasses, current().passes).before_block(self._number)
        return dist.all_gather_single(output_tensor, input_tensor, group=group, async_op=async_op)
