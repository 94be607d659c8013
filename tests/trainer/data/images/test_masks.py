"""Masks are found by their names, wherever they are, and those that do nothing are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.config import DataSettings
from lora_crucible.data.images.dataset import ImageDataset
from lora_crucible.data.images.load import load_dataset
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(2):
        Image.effect_noise((64, 48), 40 + number).convert("RGB").save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"a dog in room {number}")
    return tmp_path


def mask(path: Path, colour: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (64, 48), colour).save(path, {".jpg": "JPEG", ".webp": "WEBP"}.get(path.suffix, "PNG"))


def load(folder: Path, source: str = "file") -> ImageDataset:
    return load_dataset(DataSettings(train_data_dir=str(folder), mask_source=source))


def said(dataset: ImageDataset) -> dict[str, str]:
    return {finding.kind: finding.text() for finding in dataset.findings}


@pytest.mark.parametrize(
    "name",
    [
        "0.mask.png",
        "0-masklabel.png",
        "0_mask.jpg",
        "0-mask.webp",
        "0.MASK.PNG",
        "0.mask",
        "0.png.mask.png",
        "masks/0.png",
        "Mask/0.jpg",
        "masks/0_mask.png",
    ],
)
def test_names_of_masks(folder: Path, name: str) -> None:
    mask(folder / name)
    dataset = load(folder)
    assert [image.mask for image in dataset.images] == [folder / name, None]
    assert set(said(dataset)) == {"no_mask"}
    unused = load(folder, "none")
    assert [image.name for image in unused.images] == ["0.png", "1.png"]
    assert name in said(unused)["unused_masks"]
    assert unused.findings[0].severity == "note"


def test_masks_of_kohya_style_folders(folder: Path) -> None:
    (folder / "0.png").rename(folder / "1.png")
    (folder / "10_cat").mkdir()
    for number, place in enumerate(("10_cat/masks", "masks/10_cat")):
        Image.effect_noise((64, 48), 60 + number).save(folder / "10_cat" / f"{number}.png")
        (folder / "10_cat" / f"{number}.txt").write_text(f"a cat {number}")
        mask(folder / place / f"{number}.png")
    masks = {image.name: image.mask for image in load(folder).images}
    assert masks["10_cat/0.png"] == folder / "10_cat/masks/0.png"
    assert masks["10_cat/1.png"] == folder / "masks/10_cat/1.png"


def test_a_folder_of_masks_beside_the_folder_of_the_images(tmp_path: Path) -> None:
    rows = ["file_name,text"]
    for number in range(2):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.effect_noise((64, 48), 60 + number).save(tmp_path / "images" / f"{number}.png")
        mask(tmp_path / "masks" / f"{number}.png")
        rows.append(f"images/{number}.png,a cat {number}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    assert [image.mask for image in load(tmp_path).images] == [tmp_path / f"masks/{number}.png" for number in range(2)]


def test_a_mask_that_could_be_of_two_images_is_of_none(folder: Path) -> None:
    for name in ("1_a", "1_b"):
        (folder / name).mkdir()
        Image.effect_noise((64, 48), 60 + len(name)).save(folder / name / "x.png")
    mask(folder / "masks" / "x.png")
    assert not any(image.mask for image in load(folder).images)
    assert "masks/x.png" in said(load(folder))["lonely_masks"]


def test_masks_without_an_image_are_no_images(folder: Path) -> None:
    for name in ("0_mask.png", "1_mask.png", "gone.mask.png", "gone_mask.png", "masks/lost.png"):
        mask(folder / name)
    dataset = load(folder)
    assert [image.name for image in dataset.images] == ["0.png", "1.png"]
    assert "3 masks belong to no image (gone.mask.png, gone_mask.png, masks/lost.png)" in said(dataset)["lonely_masks"]


def test_an_image_that_is_only_called_a_mask(folder: Path) -> None:
    mask(folder / "venetian_mask.png")
    assert "venetian_mask.png" in {image.name for image in load(folder, "none").images}


def test_masks_that_are_white_all_over(folder: Path) -> None:
    mask(folder / "0.mask.png", 255)
    image = Image.new("RGBA", (64, 48))  # white paint on transparency is white on white
    image.paste((255, 255, 255, 255), (0, 0, 20, 20))
    image.save(folder / "1.mask.png")
    dataset = load(folder)
    assert "2 masks are white all over (0.png, 1.png)" in said(dataset)["white_mask"]
    assert dataset.findings[-1].severity == "warning"


def test_a_mask_that_cannot_be_read_is_found_before_training(folder: Path) -> None:
    mask(folder / "0.mask.png")
    (folder / "1.mask.png").write_bytes(b"x")
    assert "1.png: it is not an image" in said(load(folder))["unreadable_mask"]
