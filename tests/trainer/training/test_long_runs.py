"""A run of many steps takes no more memory at its end than at its beginning."""

from __future__ import annotations

import gc
from dataclasses import replace

import psutil
import pytest
import torch
from lora_crucible.config import DataSettings, parse_config
from lora_crucible.data.images.load import load_dataset
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.runs.paths import RunFiles
from lora_crucible.training.plan import plan_run
from lora_crucible.training.run import run_training

STEPS = 2000
SETTINGS = {
    "max_train_steps": STEPS,
    "batch_size": 1,
    "gradient_accumulation_steps": 1,
    "lora_rank": 1,
    "save_steps": 100,
    "validate_every_n_steps": 100,
    "early_stopping_patience": 0,
    "sample_every_n_steps": 2 * STEPS,
    "sample_steps": 1,
    "measure": "never",
}


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


@pytest.mark.slow
def test_memory_is_flat_over_2000_steps(small_model, tmp_path):
    base_model = DiffusersBaseModel(small_model)
    dataset = load_dataset(DataSettings(train_data_dir="demo", validation_percent=10))
    dataset = replace(dataset, images=dataset.images[:4], validation=dataset.validation[:1])
    tensors, resident = {}, {}

    def measure(report, _):
        if report.step in (250, STEPS - 50):  # both halfway between two checkpoints
            tensors[report.step] = live_tensors()
            resident[report.step] = psutil.Process().memory_info().rss

    files = RunFiles.claim("lora", tmp_path, tmp_path)
    result = run_training(
        base_model, plan_run(base_model, dataset, parse_config(SETTINGS)), files, Callbacks(stepped=measure)
    )
    assert len(result.losses) == STEPS
    assert tensors[STEPS - 50] == tensors[250]
    # 6 KB a step.
    assert resident[STEPS - 50] - resident[250] < 10e6
