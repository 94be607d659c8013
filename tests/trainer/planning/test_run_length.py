"""The number of steps that is announced is the number of steps that is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.config import DatasetFacts, ModelFacts, parse_config
from lora_crucible.config.data_settings import DataSettings
from lora_crucible.data.batch_sampler import BatchSampler
from lora_crucible.data.images.load import load_dataset
from lora_crucible.planning.advice import notes
from lora_crucible.planning.plan import make_plan
from lora_crucible.planning.resolve import resolve
from PIL import Image

MODEL = ModelFacts("sd15", 64, 7.0, "epsilon")
SIZES = [(64, 96), (96, 64), (64, 64), (64, 128), (128, 64)]


def image_folder(folder: Path) -> Path:
    """Make 17 images in five shapes."""
    for index in range(17):
        picture = Image.effect_noise(SIZES[index * index % 5], 60).convert("RGB")
        picture.save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"thing {index}")
    return folder


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"gradient_accumulation_steps": 3},
        {"batch_size": 18},
        {"batch_size": 1},
        {"repeats": 3, "extra_resolutions": "96"},
        {"validation_percent": 20},
    ],
)
def test_an_epoch_has_the_steps_of_its_batches(tmp_path: Path, values: dict) -> None:
    data = {"train_data_dir": str(image_folder(tmp_path)), "bucket_step": 8, "allow_upscaling": True}
    given = {"batch_size": 4, "epochs": 2, "resolution": 64, **data, **values}
    config = parse_config(given)
    dataset = load_dataset(DataSettings(**{key: given[key] for key in given if key in DataSettings.model_fields}))
    plan = make_plan(config, dataset, MODEL)
    resolved = plan.resolved.values
    batches = BatchSampler(
        [example.size for example in plan.examples], resolved.batch_size, resolved.gradient_accumulation_steps, 0
    )
    assert resolved.max_train_steps == 2 * batches.steps_per_epoch
    assert f"in {batches.steps_per_epoch} step" in plan.resolved.reasons["max_train_steps"]


def test_one_shape_has_as_many_steps_as_always() -> None:
    facts = DatasetFacts(10, (10,))
    assert [facts.steps_per_epoch(*given) for given in ((4, 1), (3, 2), (20, 1))] == [3, 2, 1]


def test_batches_that_are_hardly_filled_are_told() -> None:
    config = parse_config({"batch_size": 8, "epochs": 5})
    many_shapes = DatasetFacts(12, (2, 1, 3, 2, 2, 2))
    said = make_notes(config, many_shapes)
    assert "batches hold 2.0 images on average" in said
    assert "there are 6 shapes" in said
    assert "batches hold" not in make_notes(config, DatasetFacts(12, (6, 6)))
    assert "there are only 3 to show" in make_notes(config, DatasetFacts(3, (3,)))


def make_notes(config, facts: DatasetFacts) -> str:
    return "\n".join(notes(resolve(config, facts, MODEL).values, facts, MODEL))
