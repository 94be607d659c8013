"""Averaged and trained weights, with samples drawn in ComfyUI's inference mode."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.config import parse_config
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.comfyui.model import ComfyUIBaseModel
from lora_crucible.runs.paths import RunFiles
from lora_crucible.training.plan import plan_run
from lora_crucible.training.result import RunResult
from lora_crucible.training.run import run_training

SETTINGS = {
    "max_train_steps": 4,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "sample_steps": 1,
    "sample_prompts": "crux",
    "mixed_precision": "fp32",
    "save_precision": "fp32",
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
}


def train(demo, dataset, folder, **settings) -> tuple[RunResult, dict[str, torch.Tensor]]:
    with torch.inference_mode():  # as a node runs
        files = RunFiles.claim("lora", folder, folder)
        base_model = ComfyUIBaseModel(*demo)
        result = run_training(base_model, plan_run(base_model, dataset, parse_config({**SETTINGS, **settings})), files)
    return result, read_lora(files.lora)[0]


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_samples_between_steps_show_the_average_and_change_nothing(demo, dataset, tmp_path, optimizer):
    plain, last = train(demo, dataset, tmp_path, optimizer=optimizer, sample_every_n_steps=99)
    averaged, average = train(demo, dataset, tmp_path, optimizer=optimizer, sample_every_n_steps=2, ema_decay=0.9)
    assert averaged.losses == plain.losses
    assert len(averaged.samples) == 3
    assert not torch.equal(averaged.samples[-1], plain.samples[-1])
    for key in last:
        assert "lora_up" not in key or 0 < average[key].norm() < last[key].norm(), key
