"""What all tests of the trainer share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from lora_crucible.config import DatasetFacts, ModelFacts, ResolvedConfig, parse_config, resolve


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The models are too small for two threads to pay; on a busy machine two are many times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def complete() -> Callable[..., ResolvedConfig]:
    """Settings as a run on four images of SD1.5 completes them."""

    def completed(**values: Any) -> ResolvedConfig:
        return resolve(
            parse_config(values),
            DatasetFacts(images=4, samples_per_epoch=4),
            ModelFacts("sd15", native_resolution=64, sample_cfg=1.0, prediction_type="epsilon"),
        ).values

    return completed
