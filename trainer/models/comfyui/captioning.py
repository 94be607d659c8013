"""Captioners under ComfyUI's model management."""

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
"""Bytes that are kept free for activations. Batches shrink where it does not suffice."""


class _Holder(torch.nn.Module):
    """ComfyUI writes attributes such as `device` onto the modules that it manages; transformers' models refuse."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model


@contextmanager
def captioner_session(captioner: Captioner) -> Iterator[Callable[[], None]]:
    """Load a captioner where ComfyUI says, after it made room there; on exit its memory is given back.

    Yields:
        A function that unloads every other model, for when memory runs out.

    Raises:
        CrucibleError: it cannot be loaded, or the device has too little memory for it alone.
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
            # Whole: only ComfyUI's own layers can run from half a model.
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
    return bool(comfy.model_management.is_oom(error))


def _dtype(device: Any) -> torch.dtype:
    """bfloat16 where the device has it: chat models overflow in float16."""
    manager = comfy.model_management
    if manager.should_use_bf16(device):
        return torch.bfloat16
    return torch.float16 if manager.should_use_fp16(device) else torch.float32
