"""What is measured of the pictures that a LoRA makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lora_crucible.config import DataSettings
from lora_crucible.data.images.dataset import ImageDataset
from lora_crucible.data.images.load import load_dataset
from lora_crucible.evaluation.image_metrics import compare, measure_samplings, sheet, without_word
from lora_crucible.files.pictures import to_picture
from lora_crucible.models.previews import Sampling
from PIL import Image
from torch import Tensor

SAMPLING = Sampling(("a",), 64, 64, seed=7, steps=20, cfg=4.0, sampler="euler", scheduler="normal")


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    return load_dataset(DataSettings(train_data_dir="demo", validation_percent=20))


def noise(seed: int, count: int = 2) -> Tensor:
    """Pictures of coloured squares."""
    coarse = torch.rand(count, 4, 4, 3, generator=torch.Generator().manual_seed(seed))
    return coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)


def pictures(**changed: Tensor) -> dict[str, Tensor]:
    names = ("subjects", "other_seed", "unrelated", "without_word", "word_elsewhere")
    return {name: changed.get(name, noise(number)) for number, name in enumerate(names)}


def test_prompts_are_captions_of_images_that_are_not_trained(dataset: ImageDataset):
    drawn = measure_samplings(dataset, SAMPLING, "sd15")
    assert set(drawn["subjects"].prompts) <= {image.caption for image in dataset.validation}
    assert drawn["other_seed"].prompts == drawn["subjects"].prompts
    assert drawn["other_seed"].seed != drawn["subjects"].seed
    word = dataset.trigger_word
    assert not any(word in prompt for prompt in (*drawn["without_word"].prompts, *drawn["unrelated"].prompts))
    assert all(prompt.startswith(f"{word}, ") for prompt in drawn["word_elsewhere"].prompts)
    assert all(sampling.steps < SAMPLING.steps for sampling in drawn.values())


def test_without_a_trigger_word_it_is_not_asked_for(dataset: ImageDataset):
    bare = ImageDataset(dataset.name, dataset.folder, DataSettings(train_data_dir="demo"), dataset.images)
    drawn = measure_samplings(bare, SAMPLING, "sd15")
    assert drawn.keys() == {"subjects", "other_seed", "unrelated"}
    shown = {name: noise(number) for number, name in enumerate(drawn)}
    measures = compare(shown, shown, dataset.images)
    assert measures.without_word is None
    assert "there is none" in measures.lines("")[-1]


@pytest.mark.parametrize(
    ("caption", "left"),
    [
        ("crux, a red circle", "a red circle"),
        ("photo of Crux on a table", "photo of on a table"),
        ("cruxes everywhere", "cruxes everywhere"),
        ("crux", ""),
    ],
)
def test_a_caption_without_its_trigger_word(caption: str, left: str):
    assert without_word(caption, "crux") == left


def test_a_lora_without_effect_moves_nothing(dataset: ImageDataset):
    measures = compare(pictures(), pictures(), dataset.images)
    assert (measures.effect, measures.drift, measures.without_word, measures.word_elsewhere) == (0, 0, 0, 0)
    assert measures.variety == pytest.approx(1)
    assert measures.likeness == measures.base_likeness


def test_movement_is_told_in_distances_between_prompts(dataset: ImageDataset):
    moved = compare(pictures(), pictures(unrelated=noise(9)), dataset.images)
    assert 0.6 < moved.drift < 1.5  # other pictures, as far as another prompt's
    assert moved.effect == 0
    half = compare(pictures(), pictures(unrelated=(noise(9) + noise(2)) / 2), dataset.images)
    assert half.drift == pytest.approx(moved.drift / 2)
    word = compare(pictures(), pictures(subjects=noise(9), without_word=noise(8)), dataset.images)
    assert 0.3 < word.effect < 0.8  # one seed of two
    assert 0.6 < word.without_word < 1.5


def test_pictures_that_are_all_the_same_have_no_variety(dataset: ImageDataset):
    same = noise(9)
    assert compare(pictures(), pictures(subjects=same, other_seed=same), dataset.images).variety == 0


def test_a_copied_training_image_is_named(dataset: ImageDataset):
    image = dataset.images[5]
    copy = torch.from_numpy(np.array(Image.open(image.path).convert("RGB"))).float() / 255
    copies = torch.stack([copy * 0.9 + 0.05] * 2)
    measures = compare(pictures(), pictures(subjects=copies, other_seed=copies), dataset.images)
    assert measures.likeness > 0.98 > measures.base_likeness + 0.3
    assert measures.nearest == image.name
    assert image.name in "\n".join(measures.lines("crux"))


def test_the_sheet_shows_the_base_above_the_lora(tmp_path: Path):
    base, trained = pictures(), pictures(subjects=noise(9))
    shown = sheet(base, trained)
    assert shown.size == (10 * 64, 2 * 64)
    assert shown.crop((0, 0, 64, 64)).tobytes() == to_picture(base["subjects"][0]).tobytes()
    assert shown.crop((0, 64, 64, 128)).tobytes() == to_picture(trained["subjects"][0]).tobytes()
