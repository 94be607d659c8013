"""A folder becomes a dataset: what can be trained is in it, what cannot is named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from lora_crucible.data.dataset import Dataset, load_dataset
from lora_crucible.data.preview import contact_sheet, report
from lora_crucible.demo import TRIGGER_WORD
from lora_crucible.errors import CrucibleError
from PIL import Image


def add(
    folder: Path, name: str, caption: str | None = "a cat", size: tuple[int, int] = (80, 60), shade: int = 0
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 100, 200)).save(folder / name)
    if caption is not None:
        (folder / name).with_suffix(".txt").write_text(caption, encoding="utf-8")


def test_images_with_captions_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "my 猫 images"
    add(folder, "10.png", "ten")
    add(folder, "9.PNG", "nine", size=(60, 80))
    dataset = load_dataset(folder)
    assert [(image.path.name, image.caption) for image in dataset.images] == [
        ("9.PNG", "nine"),
        ("10.png", "ten"),
    ]
    assert [(image.width, image.height) for image in dataset.images] == [(60, 80), (80, 60)]
    assert (dataset.name, dataset.folder, dataset.resolution) == ("my 猫 images", folder, None)
    assert dataset.skipped == dataset.notes == ()


def test_demo() -> None:
    dataset = load_dataset("demo")
    assert (dataset.name, dataset.trigger_word, dataset.resolution) == ("demo", TRIGGER_WORD, 64)
    assert len(dataset.images) >= 10
    assert all(image.caption.startswith(f"{TRIGGER_WORD}, ") for image in dataset.images)
    assert not dataset.skipped
    assert not dataset.notes
    assert load_dataset("demo", trigger_word="zap", resolution=32).images[0].caption.startswith("zap, crux")


def test_trigger_word_is_put_into_captions_and_said(tmp_path: Path) -> None:
    add(tmp_path, "a.png", "a cat")
    add(tmp_path, "b.png", "sks, a dog")
    add(tmp_path, "c.png", None)
    add(tmp_path, "d.png", " \n")
    dataset = load_dataset(tmp_path, trigger_word=" sks ")
    assert [image.caption for image in dataset.images] == ["sks, a cat", "sks, a dog", "sks", "sks"]
    assert dataset.notes == (
        '"sks" is the whole caption of 2 images that have none: c.png, d.png',
        '"sks" was put in front of 1 captions that do not hold it',
    )


def test_missing_captions_are_an_error_that_names_five(tmp_path: Path) -> None:
    add(tmp_path, "with.png")
    for number in range(7):
        add(tmp_path, f"{number}.jpg", None)
    with pytest.raises(CrucibleError) as error:
        load_dataset(tmp_path)
    text = str(error.value)
    assert f"7 of 8 images in {tmp_path} have no caption" in text
    assert all(f"  {n}.jpg\n" in text for n in range(5))
    assert "5.jpg" not in text
    assert "and 2 more" in text
    assert "0.txt for 0.jpg" in text
    assert "trigger word" in text


def test_unreadable_images_are_left_out_by_name(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    dataset = load_dataset(tmp_path)
    assert [image.path.name for image in dataset.images] == ["a.png"]
    assert [line.split(":")[0] for line in dataset.skipped] == ["broken.png", "page.jpg"]
    assert "web page" in dataset.skipped[1]
    assert "Left out: broken.png: " in report(dataset)


def test_no_readable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    with pytest.raises(CrucibleError, match=r"None of the 1 images.*\n  page\.jpg: it is a web page"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("folder", ["", "  "])
def test_no_folder_given(folder: str) -> None:
    with pytest.raises(CrucibleError, match="Set train_data_dir"):
        load_dataset(folder)


def two_images(folder: Path) -> Dataset:
    add(folder, "a.png", "a cat", shade=1)
    add(folder, "b.png", "a dog", shade=2)
    return load_dataset(folder)


def test_fingerprint_is_the_same_wherever_the_folder_lies(tmp_path: Path) -> None:
    here = two_images(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    for file in (tmp_path / "there").iterdir():
        os.utime(file, (1, 1))
    (tmp_path / "there" / "notes.md").write_text("not trained")
    assert load_dataset(tmp_path / "there").fingerprint == here.fingerprint


def test_fingerprint_changes_with_what_is_trained(tmp_path: Path) -> None:
    dataset = two_images(tmp_path)
    seen = [
        dataset.fingerprint,
        load_dataset(tmp_path, trigger_word="cat").fingerprint,
        load_dataset(tmp_path, resolution=64).fingerprint,
    ]
    (tmp_path / "b.txt").write_text("a fox")
    seen.append(load_dataset(tmp_path).fingerprint)
    add(tmp_path, "b.png", "a fox", shade=3)
    seen.append(load_dataset(tmp_path).fingerprint)
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    (tmp_path / "a.txt").rename(tmp_path / "c.txt")
    seen.append(load_dataset(tmp_path).fingerprint)  # another order
    assert len(set(seen)) == len(seen)


def test_report(tmp_path: Path) -> None:
    add(tmp_path, "a.png", size=(1000, 1000))
    add(tmp_path, "b.png", size=(900, 600))
    add(tmp_path, "c.png", size=(100, 100))
    dataset = load_dataset(tmp_path, trigger_word="sks")
    text = report(dataset, resolution=512)
    assert "3 images with captions" in text
    assert "Trigger word: sks" in text
    assert "  512 x 512: 1" in text
    assert "  576 x 384: 1" in text
    assert "1 image smaller than the resolution" in text
    assert text.count("c.png") == 1
    assert '"sks" was put in front of 3 captions' in text
    assert "Resolution" not in report(dataset)


def test_contact_sheet_shows_the_crop(tmp_path: Path) -> None:
    """Of an image with wide green margins only the red middle is trained."""
    image = Image.new("RGB", (4000, 100), (0, 255, 0))
    image.paste((255, 0, 0), (1000, 0, 3000, 100))
    image.save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a red bar " * 50 + "一只猫" * 30)
    dataset = load_dataset(tmp_path)
    whole = contact_sheet(dataset)
    cropped = contact_sheet(dataset, resolution=64)
    assert whole.mode == cropped.mode == "RGB"
    assert (0, 255, 0) in {colour for _, colour in whole.getcolors(1 << 16) or ()}
    assert (0, 255, 0) not in {colour for _, colour in cropped.getcolors(1 << 16) or ()}


def test_contact_sheet_stays_small(tmp_path: Path) -> None:
    for number in range(30):
        add(tmp_path, f"{number}.png")
    sheet = contact_sheet(load_dataset(tmp_path), limit=12, columns=4)
    assert sheet.width < 4 * 192 + 100
    assert sheet.height < 3 * 300
