"""ComfyUI's global modes and model management, adapted to training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch
from comfy.ldm.modules.attention import attention_pytorch

from . import kernels

TRAINING_MEMORY_FACTOR = 4
"""Memory of the activations saved for backward, as a multiple of ComfyUI's estimate for sampling the same batch. It is
only a guess until a step has been measured; ComfyUI's dynamic memory can still release weights while a step runs."""


@contextmanager
def gradients_allowed() -> Iterator[None]:
    """Leave inference mode, in which ComfyUI runs nodes and whose tensors autograd refuses, inside the context.

    Setting `in_training` makes models use ordinary operations instead of fused kernels that have no backward.
    """
    kernels.give_backward()
    before = comfy.model_management.in_training
    with torch.inference_mode(False), torch.enable_grad():
        comfy.model_management.in_training = True
        try:
            yield
        finally:
            comfy.model_management.in_training = before


@contextmanager
def as_in_a_node() -> Iterator[None]:
    """Restore the modes in which ComfyUI runs nodes, for encoding and sampling during training."""
    before = comfy.model_management.in_training
    comfy.model_management.in_training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        comfy.model_management.in_training = before


def guessed_room(patcher: Any, latent_shape: tuple[int, ...]) -> int:
    """Return a rough estimate of the bytes that a step on a batch of `latent_shape` needs besides the weights."""
    return int(TRAINING_MEMORY_FACTOR * patcher.model.memory_required(list(latent_shape)))


def load(patcher: Any, room: int, limit: int | None, *others: Any) -> None:
    """Load the model, and others beside it, onto the device. ComfyUI offloads whatever part does not fit.

    Args:
        patcher: the model to load.
        room: the bytes to keep free on the device.
        limit: the most bytes that `room` and the model may take together; None sets no limit.
        others: further models to load first.
    """
    if limit is not None:
        room += max(0, comfy.model_management.get_free_memory(patcher.load_device) + patcher.loaded_size() - limit)
    with as_in_a_node():
        for model in (*others, patcher):
            _forget_casts(model)
        comfy.model_management.load_models_gpu([*others, patcher], memory_required=room)


def _forget_casts(patcher: Any) -> None:
    """Make a model that is not loaded forget which of its layers cast their weights when it was.

    Otherwise ComfyUI takes these layers for offloaded ones the next time, and leaves out their patches if it offloads
    them.
    """
    loaded = (one.model for one in comfy.model_management.current_loaded_models)
    if patcher.is_dynamic() or any(one is not None and one.is_clone(patcher) for one in loaded):
        return
    for module in patcher.model.modules():
        comfy.model_patcher.wipe_lowvram_weight(module)


def can_be_offloaded(patcher: Any) -> bool:
    """Return whether a model can be offloaded further by asking for more room.

    With dynamic memory that is not needed: it releases weights before torch runs out of memory.
    """
    management = comfy.model_management
    partly = management.vram_state in (management.VRAMState.LOW_VRAM, management.VRAMState.NORMAL_VRAM)
    return partly and not patcher.is_dynamic() and not management.is_device_cpu(patcher.load_device)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ComfyUI recognises an error as out of memory; it also knows the driver's error messages."""
    return isinstance(error, RuntimeError) and bool(comfy.model_management.is_oom(error))


def unload_all() -> None:
    """Unload all models and release cached memory."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def check_interrupt() -> None:
    """Raise ComfyUI's InterruptProcessingException (a BaseException) if the user pressed Cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def differentiable_attention(transformer_options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with PyTorch's attention in place of the kernel that ComfyUI was started with.

    Several of ComfyUI's attention kernels have no backward, and its default on the CPU is several times slower.
    """

    def attention(_: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return attention_pytorch(*args, **kwargs)

    return {**transformer_options, "optimized_attention_override": attention}
