"""An epoch shows the images of a dataset as often, and in the ways, that its settings say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from lora_crucible.config import DataSettings
from lora_crucible.data.images.examples import fixed_examples
from lora_crucible.data.images.load import load_dataset
from lora_crucible.errors import CrucibleError
from PIL import Image


def make(folder: Path, names: list[str], size: tuple[int, int] = (128, 64)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        picture = Image.new("RGB", size, (255, 0, 0))
        picture.paste((0, 0, 255), (size[0] // 2, 0, *size))
        picture.save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"picture {name}, red, blue")


def samples(folder: Path, resolution: int = 64, **settings):
    return load_dataset(DataSettings(train_data_dir=str(folder), **settings)).examples(resolution)


def test_each_image_as_often_as_asked_at_every_resolution(tmp_path: Path) -> None:
    make(tmp_path / "3_a", ["a"])
    make(tmp_path, ["b"])
    found = samples(tmp_path, repeats=2, resolution=64, extra_resolutions="128")
    assert Counter((sample.name, sample.size) for sample in found) == {
        ("3_a/a.png", (80, 48)): 6,
        ("b.png", (80, 48)): 2,
        ("3_a/a.png", (128, 64)): 6,
        ("b.png", (128, 64)): 2,
    }


def test_regularization_images_are_as_many_as_training_images(tmp_path: Path) -> None:
    make(tmp_path / "train", [str(number) for number in range(6)])
    make(tmp_path / "few", ["x", "y"])
    make(tmp_path / "many", [str(number) for number in range(30)])
    few = samples(tmp_path / "train", reg_data_dir=str(tmp_path / "few"), prior_loss_weight=0.5)
    assert Counter(sample.weight for sample in few) == {1.0: 6, 0.5: 6}
    assert Counter(sample.name for sample in few[6:]) == {"x.png": 3, "y.png": 3}
    many = samples(tmp_path / "train", reg_data_dir=str(tmp_path / "many"))
    assert len({sample.name for sample in many[6:]}) == 6


def test_views_are_mirrored_and_cropped(tmp_path: Path) -> None:
    make(tmp_path, ["a"])
    (plain,) = samples(tmp_path, aspect_ratio_buckets=False)
    assert plain.size == (64, 64)
    assert len(plain.views) == 1
    (both,) = samples(tmp_path, aspect_ratio_buckets=False, horizontal_flip=True, random_crop=True)
    assert len({view.key for view in both.views}) == len(both.views) == 10
    left, mirrored = (view.pixels() for view in both.views[:2])
    assert torch.equal(mirrored, left.flip(1))
    assert left[0, 0].tolist() == [1, 0, 0]
    assert left[:, :, 2].mean() < 0.1  # the left half of the picture is red
    assert {view.key for view in plain.views} < {view.key for view in both.views}


def test_masks_are_cut_as_their_images(tmp_path: Path) -> None:
    make(tmp_path, ["a"])
    mask = Image.new("L", (128, 64), 0)
    mask.paste(255, (0, 0, 64, 64))
    mask.save(tmp_path / "a.mask.png")
    (sample,) = samples(tmp_path, mask_source="file", horizontal_flip=True)
    straight, mirrored = (view.mask_pixels() for view in sample.views)
    width = sample.size[0]
    assert straight[:, : width // 2 - 2].min() > 0.99
    assert straight[:, width // 2 + 2 :].max() < 0.01
    assert torch.equal(mirrored, straight.flip(1))


def test_captions_come_in_all_their_orders(tmp_path: Path) -> None:
    make(tmp_path, ["a"])
    (plain,) = samples(tmp_path)
    assert plain.captions == ("picture a, red, blue",)
    (shuffled,) = samples(tmp_path, shuffle_caption=True, keep_tokens=1)
    assert set(shuffled.captions) == {"picture a, red, blue", "picture a, blue, red"}


def test_what_is_measured_is_each_image_once_and_always_the_same(tmp_path: Path) -> None:
    make(tmp_path / "3_a", ["a"])
    settings = DataSettings(
        train_data_dir=str(tmp_path),
        extra_resolutions="128",
        horizontal_flip=True,
        random_crop=True,
        shuffle_caption=True,
        repeats=2,
    )
    dataset = load_dataset(settings)
    (sample,) = fixed_examples(dataset.settings, dataset.images, 64)
    assert (sample.size, sample.captions) == ((80, 48), ("picture a, red, blue",))
    (view,) = sample.views
    assert (view.crop, view.mirrored) == ((0.5, 0.5), False)


def test_regularization_images_in_proportion(tmp_path: Path) -> None:
    make(tmp_path / "train", [str(number) for number in range(6)])
    make(tmp_path / "others", [f"x{number}" for number in range(4)])

    def shown(ratio: float) -> Counter[str]:
        found = samples(tmp_path / "train", reg_data_dir=str(tmp_path / "others"), reg_ratio=ratio)
        assert len(found[:6]) == 6
        return Counter(sample.name for sample in found[6:])

    assert shown(0) == {}
    assert shown(0.5) == {"x0.png": 1, "x1.png": 1, "x2.png": 1}
    assert set(shown(2).values()) == {3}


def test_what_is_encoded_is_what_was_checked(tmp_path: Path) -> None:
    make(tmp_path, ["a"])
    Image.new("L", (128, 64), 255).save(tmp_path / "a.mask.png")
    (view,) = samples(tmp_path, mask_source="file")[0].views
    before, mask = view.pixels(), view.mask_pixels()
    Image.new("RGB", (128, 64)).save(tmp_path / "a.png")
    with pytest.raises(CrucibleError, match=r"a\.png was changed after it had been checked.*Start again"):
        view.pixels()
    make(tmp_path, ["a"])
    assert torch.equal(view.pixels(), before)
    Image.new("L", (128, 64), 128).save(tmp_path / "a.mask.png")
    assert mask is not None
    with pytest.raises(CrucibleError, match=r"a\.mask\.png was changed"):
        view.mask_pixels()
