"""Fixtures that all tests of the trainer share."""

from __future__ import annotations

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


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread, because the models are small and several threads are many times slower on a busy machine.

    It applies to the whole session, so that fixtures and tests train bit-identical results.
    """
    torch.set_num_threads(1)


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
def complete() -> Callable[..., ResolvedConfig]:
    """Return settings as a run on four images completes them for SD1.5."""

    def completed(**values: Any) -> ResolvedConfig:
        return resolve(
            parse_config(values),
            DatasetFacts(images=4, samples_per_epoch=4),
            ModelFacts("sd15", native_resolution=64, sample_cfg=1.0, prediction_type="epsilon"),
        ).values

    return completed
