"""Fixtures of the tests that import ComfyUI into their own process."""

from __future__ import annotations

import os
import sys

import pytest
import torch

sys.path.insert(0, os.environ["COMFYUI_PATH"])
import comfyui_imports  # noqa: F401


@pytest.fixture
def demo():
    """The MODEL, CLIP and VAE of the demo model, loaded in inference mode, as in a node."""
    from lora_crucible.models.comfyui.demo import load_demo_clip, load_demo_model, load_demo_vae

    with torch.inference_mode():
        return load_demo_model(), load_demo_clip(), load_demo_vae()


@pytest.fixture
def dataset():
    from lora_crucible.config import DataSettings
    from lora_crucible.data.images.load import load_dataset

    return load_dataset(DataSettings(train_data_dir="demo"))


@pytest.fixture
def scarce(monkeypatch):
    """A function that sets one of ComfyUI's low-memory modes, normally unused on a CPU, and the free memory."""
    import comfy.model_management

    management = comfy.model_management

    def set_mode(name, bytes_free):
        monkeypatch.setattr(management, "is_device_cpu", lambda device: False)
        monkeypatch.setattr(management, "vram_state", management.VRAMState[name])
        monkeypatch.setattr(management, "lowvram_available", True)
        monkeypatch.setattr(management, "get_free_memory", lambda *_, **__: bytes_free)
        monkeypatch.setattr(management, "minimum_inference_memory", lambda: 0)
        monkeypatch.setattr(management, "extra_reserved_memory", lambda: 0)

    return set_mode
