"""A dataset that is saved is loaded again as it was, from any folder."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lora_crucible.captioners.dataset import with_captions
from lora_crucible.config import DataSettings
from lora_crucible.data.images.dataset import ImageDataset
from lora_crucible.data.images.examples import fixed_examples, training_samples
from lora_crucible.data.images.from_images import dataset_from_images
from lora_crucible.data.images.load import load_dataset
from lora_crucible.data.images.save import rows_table, save_dataset
from lora_crucible.errors import CrucibleError
from PIL import Image

RESOLUTION = 64


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (96, 64)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], len(mode)), np.uint8)
    return Image.fromarray(noise.squeeze(-1) if len(mode) == 1 else noise)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of many kinds: with repeats, masks, alpha, several captions, none, and one that cannot be read."""
    folder = tmp_path / "cats"
    (folder / "3_cat").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number in range(1, 13):
        picture(number, "RGBA" if number == 4 else "RGB").save(folder / f"cat {number}.png")
        (folder / f"cat {number}.txt").write_text(f"a cat, number {number}\nein Kätzchen, {number}")
    picture(20).save(folder / "3_cat" / "cat 2.jpg", quality=95)
    (folder / "3_cat" / "cat 2.txt").write_text("crux, a repeated [trigger] cat")
    picture(21, "L").save(folder / "cat 1.mask.png")
    picture(22, "L").save(folder / "masks" / "cat 3.png")
    picture(23).save(folder / "without.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    (folder / "lonely.txt").write_text("nobody")
    other = tmp_path / "others" / "2_tiger"
    other.mkdir(parents=True)
    picture(30).save(other / "1.png")
    return folder


SETTINGS = {
    "as they are": {"missing_captions": "skip"},
    "with words around": {"caption_prefix": "photo of", "caption_suffix": ", 4k", "trigger_word": "crux", "repeats": 2},
    "held out": {"validation_percent": 25, "validation_seed": 3, "trigger_word": "crux"},
    "drawn": {
        "captions_per_line": True,
        "shuffle_caption": True,
        "random_crop": True,
        "horizontal_flip": True,
        "trigger_word": "crux",
        "extra_resolutions": "96",
    },
    "file masks": {"mask_source": "file", "trigger_word": "crux"},
    "alpha masks": {"mask_source": "alpha", "trigger_word": "crux"},
    "regularization": {"reg_data_dir": "others", "trigger_word": "crux", "reg_ratio": 0.5},
}


def shown(dataset: ImageDataset) -> list[object]:
    """Return what a run is shown: pixels, masks, captions, weights and their order."""
    examples = training_samples(dataset, RESOLUTION)
    examples += fixed_examples(dataset.settings, dataset.validation, RESOLUTION)
    return [
        (
            [view.key for view in example.views],
            [view.mask_content for view in example.views],
            example.captions,
            example.weight,
        )
        for example in examples
    ]


def saved_and_moved(dataset: ImageDataset, tmp_path: Path) -> tuple[ImageDataset, Path]:
    target = tmp_path / "saved"
    target.mkdir()
    _, settings = save_dataset(dataset, target)
    moved = tmp_path / "moved elsewhere"
    target.rename(moved)
    assert settings.train_data_dir is not None
    assert not Path(settings.train_data_dir).is_absolute()
    paths = {"train_data_dir": str(moved / settings.train_data_dir)}
    paths |= {"reg_data_dir": str(moved / settings.reg_data_dir)} if settings.reg_data_dir else {}
    return load_dataset(settings.model_copy(update=paths)), moved


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_dataset_is_loaded_elsewhere(folder: Path, tmp_path: Path, name: str) -> None:
    settings = dict(SETTINGS[name])
    if "reg_data_dir" in settings:
        settings["reg_data_dir"] = str(tmp_path / "others")
    dataset = load_dataset(DataSettings(train_data_dir=str(folder), **settings))
    expected = shown(dataset)
    loaded, moved = saved_and_moved(dataset, tmp_path)
    shutil.rmtree(folder)
    assert shown(loaded) == expected
    assert loaded.training_names == dataset.training_names
    assert loaded.validation_names == dataset.validation_names
    assert not list(moved.rglob("broken.png")) + list(moved.rglob("lonely.txt"))


def test_captions_that_only_a_graph_has(folder: Path, tmp_path: Path) -> None:
    dataset = load_dataset(DataSettings(train_data_dir=str(folder), trigger_word="crux"))
    dataset = with_captions(dataset, {dataset.images[0].path: "crux, written by a captioner"})
    loaded, moved = saved_and_moved(dataset, tmp_path)
    assert loaded.images[0].captions == ("crux, written by a captioner",)
    assert shown(loaded) == shown(dataset)
    first = json.loads((moved / "images" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first == {"file_name": dataset.images[0].name, "text": ["crux, written by a captioner"]}


def test_pictures_of_other_nodes_keep_their_order_and_pixels(tmp_path: Path) -> None:
    batch = torch.rand(11, 64, 80, 3)
    settings = DataSettings(trigger_word="crux", validation_percent=20, repeats=2)
    dataset = dataset_from_images([batch], [f"picture {index}" for index in range(11)], settings, tmp_path / "temp")
    loaded, moved = saved_and_moved(dataset, tmp_path)
    assert shown(loaded) == shown(dataset)
    assert sorted(path.name for path in (moved / "images").glob("*.png"))[:2] == ["01.png", "02.png"]
    with Image.open(moved / "images" / "03.png") as image:
        assert np.array_equal(np.array(image), (batch[2] * 255).round().byte().numpy())


def test_the_table_says_what_becomes_of_each_image(folder: Path, tmp_path: Path) -> None:
    dataset = load_dataset(
        DataSettings(
            train_data_dir=str(folder), mask_source="file", trigger_word="crux", validation_percent=10, random_crop=True
        )
    )
    (tmp_path / "saved").mkdir()
    saved, _ = save_dataset(dataset, tmp_path / "saved")
    rows = {row["file"]: row for row in csv.DictReader(rows_table(saved, dataset, RESOLUTION).splitlines())}
    assert len(rows) == 14
    assert rows["images/3_cat/cat 2.jpg"]["repeats"] == "3"
    assert rows["images/cat 1.png"]["mask"] == "images/cat 1.mask.png"
    assert rows["images/cat 3.png"]["mask"] == "images/masks/cat 3.png"
    assert rows["images/cat 2.png"] | {"split": ""} == {
        "file": "images/cat 2.png",
        "split": "",
        "repeats": "1",
        "captions": "1",
        "width": "96",
        "height": "64",
        "trained at": "80x48",
        "crops": "left:0,top:0 left:1,top:1 left:0,top:1 left:1,top:0 middle",
        "mirrored": "no",
        "mask": "",
        "origin": "file cat 2.png",
    }
    splits = [row["split"] for row in rows.values()]
    assert splits.count("validation") == len(dataset.validation) == 1


def test_what_would_not_be_the_same_is_refused(folder: Path, tmp_path: Path) -> None:
    dataset = load_dataset(DataSettings(train_data_dir=str(folder), trigger_word="crux"))
    odd = replace(dataset.images[0], captions=("a caption that lost its trigger word",))
    (tmp_path / "saved").mkdir()
    with pytest.raises(CrucibleError, match=r"could not be saved so that it trains the same elsewhere.*cat 2\.jpg"):
        save_dataset(replace(dataset, images=(odd, *dataset.images[1:])), tmp_path / "saved")


def test_a_file_that_has_changed_is_not_saved(folder: Path, tmp_path: Path) -> None:
    dataset = load_dataset(DataSettings(train_data_dir=str(folder), trigger_word="crux"))
    picture(99).save(folder / "cat 5.png")
    (tmp_path / "saved").mkdir()
    with pytest.raises(CrucibleError, match=r"cat 5\.png was changed after it had been checked"):
        save_dataset(dataset, tmp_path / "saved")
