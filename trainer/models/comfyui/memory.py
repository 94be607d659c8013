"""ComfyUI's modes and model management, as training needs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.modules.attention import attention_pytorch

from . import kernels

TRAINING_MEMORY_FACTOR = 4
"""Activations kept for backward, as a multiple of ComfyUI's estimate for sampling the same batch. Only a guess until a
step has been measured, and ComfyUI's dynamic memory goes on giving way while the step runs."""


@contextmanager
def gradients_allowed() -> Iterator[None]:
    """ComfyUI runs nodes in inference mode, whose tensors autograd refuses; leave it for a while.

    `in_training` switches models from fused kernels without a backward to ordinary ones.
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
    """The modes in which ComfyUI's own nodes run, for encoding and sampling in the middle of a training."""
    before = comfy.model_management.in_training
    comfy.model_management.in_training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        comfy.model_management.in_training = before


def guessed_room(patcher: Any, latent_shape: tuple[int, ...]) -> int:
    """Bytes that a training step on a batch of `latent_shape` needs beside the weights, roughly."""
    return int(TRAINING_MEMORY_FACTOR * patcher.model.memory_required(list(latent_shape)))


def load(patcher: Any, room: int, limit: int | None, *others: Any) -> None:
    """Bring the model, and others beside it, to their device, but for what of it ComfyUI has to leave to the host.

    Args:
        room: bytes of the device that stay free.
        limit: bytes that room and model may take together; None is all that there are.
    """
    if limit is not None:
        room += max(0, comfy.model_management.get_free_memory(patcher.load_device) + patcher.loaded_size() - limit)
    with as_in_a_node():
        comfy.model_management.load_models_gpu([*others, patcher], memory_required=room)


def can_be_offloaded(patcher: Any) -> bool:
    """Whether asking for more room leaves less of a model on its device. Dynamic memory gives way before torch runs
    out, so there is nothing to ask of it."""
    management = comfy.model_management
    partly = management.vram_state in (management.VRAMState.LOW_VRAM, management.VRAMState.NORMAL_VRAM)
    return partly and not patcher.is_dynamic() and not management.is_device_cpu(patcher.load_device)


def is_out_of_memory(error: BaseException) -> bool:
    """As ComfyUI sees it, which also knows how the driver says it."""
    return isinstance(error, RuntimeError) and bool(comfy.model_management.is_oom(error))


def unload_all() -> None:
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def check_interrupt() -> None:
    """Raise ComfyUI's InterruptProcessingException (a BaseException) when the user pressed Cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def differentiable_attention(transformer_options: dict[str, Any]) -> dict[str, Any]:
    """The options with PyTorch's attention in place of whatever kernel ComfyUI was started with: several of them
    have no backward, and the CPU's default is several times slower."""

    def attention(_: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return attention_pytorch(*args, **kwargs)

    return {**transformer_options, "optimized_attention_override": attention}
