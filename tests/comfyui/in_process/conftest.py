"""ComfyUI in this process, on the CPU, as `main.py --cpu` would have it."""

from __future__ import annotations

import os
import sys

import pytest
import torch

sys.path.insert(0, os.environ["COMFYUI_PATH"])
arguments, sys.argv = sys.argv, ["main.py", "--cpu"]
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import comfy.cli_args  # noqa: E402

sys.argv = arguments
# One thread: these models are too small for two to pay.
torch.set_num_threads(1)


@pytest.fixture
def demo():
    """MODEL, CLIP and VAE of the demo model, loaded as a node loads them: in inference mode."""
    from lora_crucible.models.comfyui.demo import load_demo_clip, load_demo_model, load_demo_vae

    with torch.inference_mode():
        return load_demo_model(), load_demo_clip(), load_demo_vae()


@pytest.fixture
def dataset():
    from lora_crucible.config import DataSettings
    from lora_crucible.data.images.dataset import load_dataset

    return load_dataset(DataSettings(train_data_dir="demo"))
