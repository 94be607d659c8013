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
"""Activations kept for backward, as a multiple of ComfyUI's estimate for sampling the same batch. Only a first
request to make room: ComfyUI's dynamic memory goes on giving way while the step runs."""


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


def load(patcher: Any, latent_shape: tuple[int, ...], *others: Any) -> None:
    """Bring the model, and others beside it, to their device, with room for training on batches of `latent_shape`."""
    needed = TRAINING_MEMORY_FACTOR * patcher.model.memory_required(list(latent_shape))
    with as_in_a_node():
        comfy.model_management.load_models_gpu([*others, patcher], memory_required=needed)


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
