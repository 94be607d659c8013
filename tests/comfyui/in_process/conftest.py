"""Importing ComfyUI into the test process, set up as by `main.py --cpu`."""

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
# One thread, because these models are too small for more to be faster.
torch.set_num_threads(1)


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
