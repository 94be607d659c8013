"""The plan of a run is known before it starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lora_crucible.config import DataSettings, ModelFacts, parse_config
from lora_crucible.data.images.dataset import ImageDataset
from lora_crucible.data.images.load import load_dataset
from lora_crucible.planning.plan import make_plan
from PIL import Image

SDXL = ModelFacts("sdxl", 64, 6.0, "epsilon")


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., ImageDataset]:
    def made(count: int, name: str = "train", **settings: Any) -> ImageDataset:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for index in range(count):
            noise = np.random.default_rng(index).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"{index}.png")
            (folder / f"{index}.txt").write_text(f"a picture of thing number {index}")
        return load_dataset(DataSettings(train_data_dir=str(folder), **settings))

    return made


def test_validation_takes_images_only_when_there_are_enough(images: Callable[..., ImageDataset]) -> None:
    few = make_plan(parse_config({}), images(29), SDXL)
    assert (len(few.dataset.images), len(few.dataset.validation)) == (29, 0)
    enough = make_plan(parse_config({}), images(40), SDXL)
    assert (len(enough.dataset.images), len(enough.dataset.validation)) == (36, 4)
    assert len(enough.examples) == 36
    assert enough.resolved.reasons["validation_percent"].startswith("10: 40 images")
    assert not {image.path for image in enough.dataset.validation} & {
        sample.views[0].path for sample in enough.examples
    }


@pytest.mark.parametrize(("of_the_dataset", "of_the_config", "kept"), [(0, None, 0), (25, 0, 10), (None, 5, 2)])
def test_the_dataset_then_the_config_say_how_many(
    images: Callable[..., ImageDataset], of_the_dataset: float | None, of_the_config: float | None, kept: int
) -> None:
    dataset = images(40, validation_percent=of_the_dataset)
    plan = make_plan(parse_config({"validation_percent": of_the_config}), dataset, SDXL)
    assert len(plan.dataset.validation) == kept


def test_what_a_dataset_leaves_open_the_config_may_say(images: Callable[..., ImageDataset]) -> None:
    config = parse_config({"resolution": 128, "caption_dropout_rate": 0.3, "trigger_word": "ignored"})
    values = make_plan(config, images(4, trigger_word="aki"), SDXL).resolved.values
    assert (values.resolution, values.caption_dropout_rate, values.trigger_word) == (128, 0.3, "aki")
    values = make_plan(config, images(4, resolution=64), SDXL).resolved.values
    assert values.resolution == 64


def test_regularization_images_are_counted_apart(images: Callable[..., ImageDataset], tmp_path: Path) -> None:
    images(3, "others")
    plain = make_plan(parse_config({}), images(20), SDXL).resolved.values
    mixed = make_plan(parse_config({}), images(20, reg_data_dir=str(tmp_path / "others"), reg_ratio=0.5), SDXL)
    assert len(mixed.examples) == 30
    assert mixed.resolved.values.max_train_steps == plain.max_train_steps * 1.5


def test_what_is_worth_knowing_comes_along(images: Callable[..., ImageDataset]) -> None:
    plan = make_plan(parse_config({"algorithm": "dora"}), images(20), SDXL)
    assert "algorithm = dora: fully applied only by" in plan.notes[0]
