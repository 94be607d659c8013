"""Other models that are in memory during training."""

from __future__ import annotations

import comfy.model_management
import models
import pytest
import torch
from lora_crucible.config import parse_config
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.models.comfyui.model import ComfyUIBaseModel
from lora_crucible.runs.paths import RunFiles
from lora_crucible.training.plan import plan_run
from lora_crucible.training.run import run_training

SETTINGS = {"max_train_steps": 2, "batch_size": 1, "sample_steps": 1, "sample_prompts": "crux", "measure": "never"}


@pytest.fixture
def other():
    """A MODEL with a patch, like one from a LoRA."""
    patcher = models.sdxl()
    name = "diffusion_model.middle_block.1.proj_in.weight"
    change = torch.full_like(patcher.model.state_dict()[name], 0.05)
    patcher.add_patches({name: ("diff", (change,))})
    return patcher


def output_of(patcher):
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([patcher])
        random = torch.Generator().manual_seed(0)
        context = torch.randn(1, 77, models.SDXL_CONTEXT, generator=random)
        vector = torch.randn(1, models.SDXL["adm_in_channels"], generator=random)
        latent = torch.randn(1, 4, 8, 8, generator=random)
        return patcher.model.apply_model(latent, torch.tensor([1.0]), c_crossattn=context, y=vector)


def test_they_make_room_and_compute_as_before(other, demo, dataset, tmp_path):
    expected = output_of(other)
    loaded = []

    def stepped(*_):
        loaded.append([one.model for one in comfy.model_management.current_loaded_models])

    with torch.inference_mode():  # as a node runs
        files = RunFiles.claim("lora", tmp_path, tmp_path)
        base_model = ComfyUIBaseModel(*demo)
        run_training(
            base_model, plan_run(base_model, dataset, parse_config(SETTINGS)), files, Callbacks(stepped=stepped)
        )
    assert len(loaded) == 2
    assert not any(patcher.is_clone(other) for patchers in loaded for patcher in patchers)
    assert torch.equal(output_of(other), expected)
