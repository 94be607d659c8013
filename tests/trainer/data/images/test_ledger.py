"""Every file of a dataset folder is used, or named with the reason."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from lora_crucible.config import DataSettings
from lora_crucible.data.images.dataset import ImageDataset
from lora_crucible.data.images.load import load_dataset
from lora_crucible.errors import CrucibleError
from PIL import Image


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 40 + seed).convert("RGB").save(path)


def load(folder: Path, **settings) -> ImageDataset:
    return load_dataset(DataSettings(train_data_dir=str(folder), **{"trigger_word": "ohwx", **settings}))


def said(dataset: ImageDataset) -> dict[str, str]:
    return {finding.kind: finding.text() for finding in dataset.findings}


def captions(dataset: ImageDataset) -> dict[str, str]:
    return {image.name: image.caption.removeprefix("ohwx, ") for image in (*dataset.images, *dataset.validation)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for number in range(3):
        picture(folder / f"{number}.png", number)
        (folder / f"{number}.txt").write_text(f"a dog in room {number}")
    return folder


def test_a_folder_with_nothing_else_has_no_findings_about_files(folder: Path) -> None:
    for name in ("README.md", "LICENSE", "readme.txt", "Thumbs.db", ".DS_Store", "._0.png", "0.npz"):
        (folder / name).write_text("x")
    assert set(said(load(folder))) == {"trigger_word_added"}


@pytest.mark.parametrize(
    "name", ["photo.jpg.txt", "photo.txt.txt", "PHOTO.txt", "photo .txt", "photo.Txt", "Photo.CAPTION"]
)
def test_captions_whose_name_is_nearly_that_of_the_image_are_read(folder: Path, name: str) -> None:
    picture(folder / "photo.jpg")
    (folder / name).write_text("a red house")
    dataset = load(folder)
    assert captions(dataset)["photo.jpg"] == "a red house"
    assert "orphan_captions" not in said(dataset)


def test_accented_letters_in_either_form(folder: Path) -> None:
    picture(folder / unicodedata.normalize("NFD", "café.jpg"))
    (folder / unicodedata.normalize("NFC", "café.txt")).write_text("a cup")
    assert "a cup" in captions(load(folder)).values()


def test_a_spelling_that_two_images_share_is_no_guess(folder: Path) -> None:
    picture(folder / "photo.jpg")
    picture(folder / "Photo.png", 5)
    (folder / "PHOTO.txt").write_text("a red house")
    dataset = load(folder)
    assert "a red house" not in captions(dataset).values()
    assert "PHOTO.txt" in said(dataset)["orphan_captions"]


def test_what_is_not_used_is_named(folder: Path) -> None:
    for name in ("x.txt.txt", "lost.txt", "a.jxl", "photo.CR2", "captions.csv", "data.parquet", "clip.mp4"):
        (folder / name).write_bytes(b"\xff\x0a data")
    (folder / "gone.png").symlink_to("/nowhere/gone.png")
    found = said(load(folder))
    assert "2 caption files belong to no image (lost.txt, x.txt.txt)" in found["orphan_captions"]
    assert "a.jxl: JPEG XL" in found["unread_images"]
    assert "photo.CR2: a raw photo" in found["unread_images"]
    assert "1 link leads nowhere (gone.png)" in found["broken_links"]
    assert "captions.csv, data.parquet" in found["unread_tables"]
    assert "metadata_path" in found["unread_tables"]
    assert "1 video is not used (clip.mp4)" in found["videos"]


def test_a_json_file_is_named_where_it_may_be_the_caption(folder: Path) -> None:
    (folder / "0.json").write_text("{}")
    assert "maybe_captions" not in said(load(folder))
    (folder / "0.txt").unlink()
    assert "0.json" in said(load(folder))["maybe_captions"]


@pytest.mark.parametrize("name", ["a.jp2", "a.tga", "a.jpe", "a.ppm", "a.qoi", "a.jpg_large", "a", "a.JPEG~1"])
def test_what_pillow_reads_is_read(folder: Path, name: str) -> None:
    picture(folder / "t.jpg")
    if Path(name).suffix in (".jp2", ".tga", ".ppm", ".qoi"):
        Image.open(folder / "t.jpg").save(folder / name)
        (folder / "t.jpg").unlink()
    else:
        (folder / "t.jpg").rename(folder / name)
    assert name in captions(load(folder))


def test_subfolders_beside_images_are_named(folder: Path) -> None:
    for number in range(4):
        picture(folder / "beach" / f"{number}.jpg", number)
    assert "4 images in subfolders are left out: beach (4)" in said(load(folder))["left_out_folders"]


def test_subfolders_of_any_depth_are_named(folder: Path) -> None:
    for name in ("beach/a.jpg", "beach/day 2/b.jpg", "10_cat/c.jpg", "10_cat/more/d.jpg", "0_none/e.jpg"):
        picture(folder / name, len(name))
    text = said(load(folder))["left_out_folders"]
    assert "4 images in subfolders are left out: 0_none (1), 10_cat/more (1), beach (1), beach/day 2 (1)" in text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("texts/0.txt", "texts_in_folders"),
        ("meta/metadata.csv", "unread_tables"),
        ("captions.csv", "unread_tables"),
        ("train.parquet", "unread_tables"),
        ("0.tags", "maybe_captions"),
        ("0.md", "maybe_captions"),
        ("../metadata.jsonl", "table_above"),
    ],
)
def test_what_may_be_the_missing_captions_is_a_warning(folder: Path, name: str, kind: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    assert all(finding.severity == "note" for finding in load(folder).findings)
    (folder / "0.txt").unlink()
    dataset = load(folder)
    assert Path(name).parts[0].removeprefix("..") in said(dataset)[kind]
    assert [one.severity for one in dataset.findings if one.kind == kind] == ["warning"]


def test_lonely_captions_are_told_which_image_may_be_theirs(folder: Path) -> None:
    (folder / "0.txt").rename(folder / "room-0.txt")
    (folder / "0.png").rename(folder / "room_0.png")
    assert "room-0.txt may be for room_0.png" in said(load(folder))["orphan_captions"]


def test_captions_of_images_that_are_not_read_are_not_lonely(folder: Path) -> None:
    for name in ("a.jxl", "a.txt", "b.mp4", "b.txt", "c.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "c.png").symlink_to("/nowhere")
    assert "orphan_captions" not in said(load(folder))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pictures.zip", "archives"),
        ("photo.png.lnk", "shortcuts"),
        ("photo.png.part", "unfinished"),
        ("my lora.safetensors", "other_files"),
        ("pipe.png", "other_files"),
    ],
)
def test_files_of_other_kinds_are_named(folder: Path, name: str, kind: str) -> None:
    os.mkfifo(folder / name) if name == "pipe.png" else (folder / name).write_bytes(b"x")
    assert name in said(load(folder))[kind]


def test_what_belongs_to_other_programs_is_not_mentioned(folder: Path) -> None:
    names = ["0_sdxl.npz", "0_0064x0048_wan.safetensors", "dataset.toml", "0.txt.bak", "0.xmp", "0.MOV", "desktop.ini"]
    names += ["0.json", "1.png.json", "1.png.supplemental-metadata.json"]
    for name in names:
        (folder / name).write_bytes(b"x")
    for name in ("@eaDir/0.jpg", "__MACOSX/0.jpg", "log/a.log"):
        picture(folder / name) if name.endswith("jpg") else (folder / "log").mkdir()
    assert set(said(load(folder))) == {"trigger_word_added"}


def test_images_beside_those_of_a_table_are_named(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "images" / f"{number}.png", number)
    rows = "".join(f"/content/cats/images/{number}.png,a cat {number}\n" for number in range(2))
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{rows}")
    dataset = load(tmp_path)
    assert captions(dataset) == {"images/0.png": "a cat 0", "images/1.png": "a cat 1"}
    assert "(images/2.png)" in said(dataset)["images_not_listed"]


def test_without_captions_nothing_is_left_to_train(folder: Path) -> None:
    for number in range(3):
        (folder / f"{number}.txt").unlink()
    dataset = load(folder, missing_captions="skip")
    assert "no image is left to train" in said(dataset)["no_caption"]
    with pytest.raises(CrucibleError, match="no image is left"):
        dataset.require_trainable()


@pytest.mark.parametrize("inner", ["img", "dataset/images"])
def test_a_project_folder_leads_to_its_images(tmp_path: Path, inner: str) -> None:
    for name in ("log", "model", "reg"):
        (tmp_path / name).mkdir()
    picture(tmp_path / inner / "10_ohwx man" / "a.jpg")
    with pytest.raises(CrucibleError) as error:
        load(tmp_path)
    assert f"for example {tmp_path / inner}" in str(error.value)
    assert "Convert" not in str(error.value)


def test_a_table_names_images_in_subfolders(tmp_path: Path) -> None:
    for name in ("Cat/0.jpg", "Dog/0.jpg"):
        picture(tmp_path / name, len(name))
    (tmp_path / "metadata.csv").write_text("file_name,text\nCat/0.jpg,a cat\nDog/0.jpg,a dog\n../x.jpg,no\n")
    assert captions(load(tmp_path)) == {"Cat/0.jpg": "a cat", "Dog/0.jpg": "a dog"}


@pytest.mark.parametrize("prefix", ["train/", "/content/cats/", "C:\\cats\\", "./"])
def test_rows_with_paths_of_elsewhere_are_matched_by_their_last_part(folder: Path, prefix: str) -> None:
    rows = "".join(f"{prefix}{number}.png,house {number}\n" for number in range(3))
    (folder / "metadata.csv").write_text(f"file_name,text\n{rows}")
    dataset = load(folder, caption_source="metadata")
    assert captions(dataset) == {f"{number}.png": f"house {number}" for number in range(3)}
    assert "rows_without_image" not in said(dataset)


def test_rows_that_could_be_two_images_are_not_matched(tmp_path: Path) -> None:
    for name in ("1_a/0.png", "1_b/0.png"):
        picture(tmp_path / name, len(name))
    (tmp_path / "metadata.csv").write_text("file_name,text\ntrain/0.png,house\n")
    dataset = load(tmp_path)
    assert "house" not in captions(dataset).values()
    assert "train/0.png" in said(dataset)["doubtful_rows"]


def test_a_quote_that_is_not_closed_swallows_no_rows(folder: Path) -> None:
    text = 'file_name,text\n0.png,"a ""cat"", quoted"\n1.png,"open sign\n\n2.png,a cow, in a field\n'
    (folder / "metadata.csv").write_text(text)
    dataset = load(folder, caption_source="metadata")
    assert captions(dataset) == {"0.png": 'a "cat", quoted', "1.png": "open sign", "2.png": "a cow, in a field"}
    assert "line 3: a quotation mark is not closed" in said(dataset)["mended_lines"]


def test_a_caption_of_several_lines_is_one_row(folder: Path) -> None:
    (folder / "metadata.csv").write_text('file_name,text\n0.png,"a cat\non a mat"\n1.png\n')
    dataset = load(folder, caption_source="metadata")
    assert captions(dataset)["0.png"] == "a cat on a mat"
    assert "line 4: 1.png has no caption" in said(dataset)["unread_lines"]


def test_regularization_images_without_captions_show_their_class(folder: Path, tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "reg" / "1_old man" / f"{number}.jpg", number)
    dataset = load(folder, reg_data_dir=str(tmp_path / "reg"), missing_captions="skip")
    assert [image.caption for image in dataset.regularization] == ["old man"] * 3
    assert '"old man" is used' in said(dataset)["class_captions"]


def test_a_regularization_folder_below_the_images_is_not_left_out(folder: Path) -> None:
    picture(folder / "reg" / "1_man" / "a.jpg")
    assert "left_out_folders" in said(load(folder))
    assert "left_out_folders" not in said(load(folder, reg_data_dir=str(folder / "reg")))


def test_an_empty_regularization_folder_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "reg").mkdir()
    with pytest.raises(CrucibleError, match=r"reg contains no images; it is empty(.|\n)*reg_data_dir.*leave it out"):
        load(folder, reg_data_dir=str(tmp_path / "reg"))


def test_regularization_images_of_no_class_are_told_what_helps(folder: Path, tmp_path: Path) -> None:
    picture(tmp_path / "reg" / "a.jpg")
    text = said(load(folder, reg_data_dir=str(tmp_path / "reg")))["no_caption"]
    assert "1_man" in text
    assert "trigger word" not in text


def test_a_year_is_no_number_of_repeats(tmp_path: Path) -> None:
    picture(tmp_path / "2022_summer" / "a.jpg")
    picture(tmp_path / "100_cat" / "a.jpg", 3)
    text = said(load(tmp_path))["many_repeats"]
    assert "2022_summer is shown 2,022 times per epoch" in text
    assert "100_cat" not in text
    assert "100_cat is shown 300 times per epoch, 100 by the number in the folder's name times 3" in "".join(
        one.text() for one in load(tmp_path, repeats=3).findings
    )


def test_the_number_of_the_folder_itself_does_not_count(tmp_path: Path) -> None:
    picture(tmp_path / "10_cat" / "a.jpg")
    assert f"choose the folder above ({tmp_path})" in said(load(tmp_path / "10_cat"))["own_repeats"]
    assert "own_repeats" not in said(load(tmp_path))


def test_masks_of_other_names_and_shapes(folder: Path) -> None:
    Image.new("L", (64, 48), 255).save(folder / "0_mask.png")
    Image.new("L", (64, 64), 255).save(folder / "1.mask.jpg")
    Image.new("L", (64, 48), 0).save(folder / "2-masklabel.png")
    dataset = load(folder, mask_source="file")
    assert len(captions(dataset)) == 3
    assert {image.mask.name for image in dataset.images if image.mask} == {
        "0_mask.png",
        "1.mask.jpg",
        "2-masklabel.png",
    }
    found = said(dataset)
    assert "(1.png)" in found["stretched_mask"]
    assert "(2.png)" in found["black_mask"]
    assert "3 masks are not used" in said(load(folder))["unused_masks"]


def test_a_mask_of_another_shape_covers_the_same_part(tmp_path: Path) -> None:
    image = Image.new("RGB", (128, 64), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 32, 64))
    image.save(tmp_path / "a.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 16, 64))
    mask.save(tmp_path / "a.mask.png")
    (view,) = load(tmp_path, mask_source="file", resolution=64).examples(64)[0].views
    red, shown = view.pixels()[..., 0] > 0.5, view.mask_pixels()
    assert shown is not None
    assert ((shown > 0.5) != red).float().mean() < 0.02


def test_an_image_called_mask_with_a_caption_is_an_image(folder: Path) -> None:
    picture(folder / "0_mask.png", 9)
    (folder / "0_mask.txt").write_text("a dog with a mask")
    assert "0_mask.png" in captions(load(folder))


def test_opaque_alpha_masks_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    Image.open(tmp_path / "a.png").convert("RGBA").save(tmp_path / "a.png")
    assert "no transparent pixels (a.png)" in said(load(tmp_path, mask_source="alpha"))["no_mask"]
