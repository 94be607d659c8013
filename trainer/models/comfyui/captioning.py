"""Running captioners under ComfyUI's model management."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch

from ...captioners.base import Captioner, too_large

WORKING_MEMORY = 2 * 1024**3
"""Bytes kept free for activations. If they are not enough, batches shrink."""


class _Holder(torch.nn.Module):
    """A wrapper on which ComfyUI can set attributes such as `device`; transformers' models do not allow this."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model


@contextmanager
def captioner_session(captioner: Captioner) -> Iterator[Callable[[], None]]:
    """Load a captioner on the device that ComfyUI chooses, making room there first, and unload it on exit.

    Yields:
        A function that unloads all other models, to be called when memory runs out.

    Raises:
        CrucibleError: the captioner cannot be loaded, or does not fit on the device even alone.
    """
    manager = comfy.model_management
    device = manager.get_torch_device()
    captioner.load(_dtype(device))
    patchers = [comfy.model_patcher.ModelPatcher(_Holder(captioner.module), device, manager.unet_offload_device())]

    def free_memory() -> None:
        manager.free_memory(1e30, device, keep_loaded=[manager.LoadedModel(patchers[0])])
        manager.soft_empty_cache()

    try:
        try:
            # Always load the whole model: only ComfyUI's own layers can run while partly offloaded.
            manager.load_models_gpu(patchers, memory_required=WORKING_MEMORY, force_full_load=True)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise too_large(captioner) from error
        yield free_memory
    finally:
        captioner.unload()
        patchers.clear()
        gc.collect()
        manager.cleanup_models()
        manager.soft_empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Return whether ComfyUI recognises an error as out of memory."""
    return bool(comfy.model_management.is_oom(error))


def _dtype(device: Any) -> torch.dtype:
    """Return the dtype for a captioner: bfloat16 if the device supports it, because chat models overflow in float16."""
    manager = comfy.model_management
    if manager.should_use_bf16(device):
        return torch.bfloat16
    return torch.float16 if manager.should_use_fp16(device) else torch.float32
