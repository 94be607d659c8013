"""Fixtures that all tests of the trainer share."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from lora_crucible.config import (
    DatasetFacts,
    DataSettings,
    ModelFacts,
    ResolvedConfig,
    parse_config,
)
from lora_crucible.data.images.dataset import ImageDataset
from lora_crucible.data.images.load import load_dataset
from lora_crucible.demo import MODEL_DIR
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.planning.resolve import resolve
from lora_crucible.runs.checkpoint import Checkpoints


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread, because the models are small and several threads are many times slower on a busy machine.

    It applies to the whole session, so that fixtures and tests train bit-identical results.
    """
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def frozen_garbage() -> None:
    """Leave what pytest and the imported modules hold out of garbage collection, which every lack of memory starts."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> str:
    """A folder with the demo model and a UNet of one small block, for runs whose steps should take no time."""
    folder: Path = tmp_path_factory.mktemp("small") / "model"
    shutil.copytree(MODEL_DIR, folder, ignore=shutil.ignore_patterns("unet"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8,),
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("UpBlock2D",),
            mid_block_type=None,
            layers_per_block=1,
            cross_attention_dim=128,
            norm_num_groups=4,
        )
    unet.save_pretrained(folder / "unet")
    return str(folder)


@pytest.fixture(scope="module")
def base_model(small_model) -> DiffusersBaseModel:
    return DiffusersBaseModel(small_model)


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    """The demo dataset."""
    return load_dataset(DataSettings(train_data_dir="demo"))


@pytest.fixture
def no_curves(monkeypatch) -> None:
    """Leave out the plot of a run and its log for TensorBoard, which take longer than the runs of most tests."""
    monkeypatch.setattr("lora_crucible.training.trainer.can_plot", lambda: False)
    monkeypatch.setattr("lora_crucible.runs.trackers.find_spec", lambda name: None)


@pytest.fixture
def checkpoints_in_time(monkeypatch) -> None:
    """Wait for the checkpoint before when the next one is due. A run does not: where a checkpoint is still being
    written, it writes the next one a step later."""
    is_due = Checkpoints.is_due

    def waited(checkpoints: Checkpoints, step: int, every: int | None) -> bool:
        if checkpoints._writing is not None:
            checkpoints._writing.exception()
        return is_due(checkpoints, step, every)

    monkeypatch.setattr(Checkpoints, "is_due", waited)


@pytest.fixture
def complete() -> Callable[..., ResolvedConfig]:
    """Return settings as a run on four images completes them for SD1.5."""

    def completed(**values: Any) -> ResolvedConfig:
        return resolve(
            parse_config(values),
            DatasetFacts(examples=4, bucket_sizes=(4,)),
            ModelFacts("sd15", native_resolution=64, sample_cfg=1.0, prediction_type="epsilon"),
        ).values

    return completed


@pytest.fixture(autouse=True)
def no_comfyui(monkeypatch) -> None:
    """Keep single files from being opened by the ComfyUI of whoever runs the tests."""
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
