"""A folder becomes a dataset with all images that can be trained, and those that cannot are named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from lora_crucible.config import DataSettings
from lora_crucible.data.images.contact_sheet import contact_sheet
from lora_crucible.data.images.dataset import ImageDataset
from lora_crucible.data.images.load import load_dataset
from lora_crucible.data.images.report import dataset_report
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


def load(
    folder: Path | str, roots: tuple[Path, ...] = (), facts_folder: Path | None = None, **settings
) -> ImageDataset:
    chosen = DataSettings(train_data_dir=str(folder), **settings)
    return load_dataset(chosen, roots=roots, facts_folder=facts_folder)


def finding(dataset: ImageDataset, kind: str):
    return next(one for one in dataset.findings if one.kind == kind)


def test_images_with_captions_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "my 猫 images"
    add(folder, "10.png", "ten")
    add(folder, "9.PNG", "nine", size=(60, 80))
    dataset = load(folder)
    assert [(image.path.name, image.caption) for image in dataset.images] == [
        ("9.PNG", "nine"),
        ("10.png", "ten"),
    ]
    assert [(image.width, image.height) for image in dataset.images] == [(60, 80), (80, 60)]
    assert (dataset.name, dataset.folder) == ("my 猫 images", folder)
    assert dataset.findings == ()


def test_demo() -> None:
    dataset = load("demo")
    assert (dataset.name, dataset.trigger_word, dataset.settings.resolution) == ("demo", TRIGGER_WORD, 64)
    assert len(dataset.images) >= 10
    assert all(image.caption.startswith(f"{TRIGGER_WORD}, ") for image in dataset.images)
    assert not dataset.findings
    assert load("demo", trigger_word="zap", resolution=128).images[0].caption.startswith("zap, crux")


def test_trigger_word_is_put_into_captions_and_said(tmp_path: Path) -> None:
    add(tmp_path, "a.png", "a cat")
    add(tmp_path, "b.png", "sks, a dog")
    add(tmp_path, "c.png", None)
    add(tmp_path, "d.png", " \n")
    dataset = load(tmp_path, trigger_word=" sks ")
    assert [image.caption for image in dataset.images] == ["sks, a cat", "sks, a dog", "sks", "sks"]
    assert finding(dataset, "no_caption").images == ("c.png", "d.png")
    assert '"sks" is used as their whole caption' in finding(dataset, "no_caption").text()
    assert '"sks" was added to the front of 1 caption ' in finding(dataset, "trigger_word_added").text()
    dataset.require_trainable()


def test_missing_captions_keep_a_training_from_starting(tmp_path: Path) -> None:
    add(tmp_path, "with.png")
    for number in range(7):
        add(tmp_path, f"{number}.jpg", None)
    dataset = load(tmp_path)
    assert len(dataset.images) == 8  # Auto Caption may still write them
    with pytest.raises(CrucibleError) as error:
        dataset.require_trainable()
    text = str(error.value)
    assert "7 images have no caption" in text
    assert all(f"{n}.jpg" in text for n in range(5))
    assert "5.jpg" not in text
    assert "and 2 more" in text
    assert "0.txt for 0.jpg" in text
    for remedy in ("trigger word", "Auto Caption", "skip"):
        assert remedy in text
    skipped = load(tmp_path, missing_captions="skip")
    assert [image.name for image in skipped.images] == ["with.png"]
    skipped.require_trainable()


def test_unreadable_images_are_left_out_by_name(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    dataset = load(tmp_path)
    assert [image.path.name for image in dataset.images] == ["a.png"]
    left_out = [one.text() for one in dataset.findings if one.kind == "unreadable"]
    assert left_out[0].startswith("broken.png was skipped: ")
    assert left_out[1].startswith("page.jpg was skipped: it is a web page")
    assert left_out[0] in dataset_report(dataset).text()


def test_no_readable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    with pytest.raises(CrucibleError, match=r"None of the images.*\(1 found\).*\n  page\.jpg: it is a web page"):
        load(tmp_path)


@pytest.mark.parametrize("folder", ["", "  "])
def test_no_folder_given(folder: str) -> None:
    with pytest.raises(CrucibleError, match="Set train_data_dir"):
        load(folder)


def two_images(folder: Path) -> ImageDataset:
    add(folder, "a.png", "a cat", shade=1)
    add(folder, "b.png", "a dog", shade=2)
    return load(folder)


def test_fingerprint_is_the_same_wherever_the_folder_lies(tmp_path: Path) -> None:
    here = two_images(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    for file in (tmp_path / "there").iterdir():
        os.utime(file, (1, 1))
    (tmp_path / "there" / "notes.md").write_text("not trained")
    assert load(tmp_path / "there").fingerprint == here.fingerprint


def test_fingerprint_changes_with_what_is_trained(tmp_path: Path) -> None:
    dataset = two_images(tmp_path)
    seen = [
        dataset.fingerprint,
        load(tmp_path, trigger_word="cat").fingerprint,
        load(tmp_path, extra_resolutions="64").fingerprint,
    ]
    # What a dataset may leave open is among the settings of the run, where it is compared as it was decided.
    assert load(tmp_path, resolution=64, validation_percent=0.0).fingerprint == dataset.fingerprint
    (tmp_path / "b.txt").write_text("a fox")
    seen.append(load(tmp_path).fingerprint)
    add(tmp_path, "b.png", "a fox", shade=3)
    seen.append(load(tmp_path).fingerprint)
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    (tmp_path / "a.txt").rename(tmp_path / "c.txt")
    seen.append(load(tmp_path).fingerprint)  # another order
    assert len(set(seen)) == len(seen)


def test_contact_sheet_shows_the_crop(tmp_path: Path) -> None:
    """Only the red centre of an image with wide green margins is trained."""
    image = Image.new("RGB", (4000, 100), (0, 255, 0))
    image.paste((255, 0, 0), (1000, 0, 3000, 100))
    image.save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a red bar " * 50 + "一只猫" * 30)
    dataset = load(tmp_path)
    whole = contact_sheet(dataset)
    cropped = contact_sheet(dataset, resolution=64)
    assert whole.mode == cropped.mode == "RGB"
    assert (0, 255, 0) in {colour for _, colour in whole.getcolors(1 << 16) or ()}
    assert (0, 255, 0) not in {colour for _, colour in cropped.getcolors(1 << 16) or ()}


def test_contact_sheet_stays_small(tmp_path: Path) -> None:
    for number in range(30):
        add(tmp_path, f"{number}.png")
    sheet = contact_sheet(load(tmp_path), limit=12, columns=4)
    assert sheet.width < 4 * 192 + 100
    assert sheet.height < 3 * 300


def test_repeats_come_from_folders_and_settings(tmp_path: Path) -> None:
    add(tmp_path / "10_cat", "a.png")
    add(tmp_path, "b.png")
    assert {image.name: image.repeats for image in load(tmp_path, repeats=2).images} == {"10_cat/a.png": 20, "b.png": 2}


def test_regularization_images_have_no_trigger_word(tmp_path: Path) -> None:
    add(tmp_path / "train", "a.png", "a cat")
    add(tmp_path / "reg", "b.png", "a dog")
    (tmp_path / "reg" / "broken.png").write_bytes(b"")
    dataset = load(tmp_path / "train", trigger_word="sks", reg_data_dir=str(tmp_path / "reg"))
    assert [image.caption for image in dataset.images] == ["sks, a cat"]
    assert [image.caption for image in dataset.regularization] == ["a dog"]
    assert "Regularization: broken.png was skipped: the file is empty" in finding(dataset, "unreadable").text()


def test_links_that_lead_out_of_the_roots_are_left_out(tmp_path: Path) -> None:
    add(tmp_path / "elsewhere", "secret.png")
    add(tmp_path / "input" / "cats", "a.png")
    (tmp_path / "input" / "cats" / "b.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    (tmp_path / "input" / "cats" / "3_loop").symlink_to(tmp_path / "input" / "cats")
    dataset = load(tmp_path / "input" / "cats", roots=(tmp_path / "input",))
    assert {Path(image.name).name for image in dataset.images} == {"a.png"}
    assert "b.png" in finding(dataset, "outside").images
    assert len(load(tmp_path / "input" / "cats").images) > len(dataset.images)


def test_metadata_rows_without_image_and_misspelt_files_are_named(tmp_path: Path) -> None:
    add(tmp_path, "a.png", None)
    (tmp_path / "metadate.csv").write_text("a.png,a cat\n")
    dataset = load(tmp_path)
    assert finding(dataset, "unread_tables").images == ("metadate.csv",)
    assert finding(dataset, "unread_tables").severity == "warning"
    (tmp_path / "metadate.csv").rename(tmp_path / "metadata.csv")
    (tmp_path / "metadata.csv").write_text("a.png,a cat\ngone.png,a dog\n")
    dataset = load(tmp_path)
    assert dataset.images[0].caption == "a cat"
    assert finding(dataset, "rows_without_image").images == ("gone.png",)


def test_conflicting_captions_are_listed(tmp_path: Path) -> None:
    add(tmp_path, "a.png", "a cat")
    (tmp_path / "metadata.csv").write_text("a.png,a dog\n")
    dataset = load(tmp_path)
    assert dataset.images[0].caption == "a cat"
    assert finding(dataset, "caption_conflict").images == ("a.png (a.txt before metadata.csv)",)


def test_masks_from_files_and_alpha(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    add(tmp_path, "b.png")
    Image.new("L", (80, 60), 255).save(tmp_path / "a.mask.png")
    Image.new("RGBA", (80, 60), (1, 2, 3, 100)).save(tmp_path / "b.png")
    with_files = load(tmp_path, mask_source="file")
    assert [image.mask for image in with_files.images] == [tmp_path / "a.mask.png", None]
    assert finding(with_files, "no_mask").images == ("b.png",)
    assert [image.mask for image in load(tmp_path, mask_source="alpha").images] == [None, tmp_path / "b.png"]


def test_validation_images_are_not_trained(tmp_path: Path) -> None:
    for number in range(10):
        Image.effect_noise((80, 80), 20 + 20 * number).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"picture {number}")
    shutil.copy(tmp_path / "0.png", tmp_path / "copy.png")
    (tmp_path / "copy.txt").write_text("the same")
    dataset = load(tmp_path, validation_percent=30)
    assert len(dataset.validation) == 3
    assert not {image.name for image in dataset.validation} & {image.name for image in dataset.images}
    assert load(tmp_path, validation_percent=30).validation == dataset.validation
    for seed in range(20):
        chosen = load(tmp_path, validation_percent=50, validation_seed=seed).validation
        assert not {"0.png", "copy.png"} & {image.name for image in chosen}
