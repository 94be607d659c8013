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
