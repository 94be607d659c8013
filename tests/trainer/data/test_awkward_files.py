"""In a folder with every kind of faulty image and caption, usable files are used and all others are reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lora_crucible.config import DataSettings
from lora_crucible.data.images.contact_sheet import contact_sheet
from lora_crucible.data.images.dataset import ImageDataset
from lora_crucible.data.images.load import load_dataset
from lora_crucible.data.images.report import dataset_report
from PIL import Image

SIZE = (96, 64)


def picture(mode: str = "RGB") -> Image.Image:
    return Image.effect_noise(SIZE, 90).convert(mode)


def rotated(orientation: int) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture().save(path, "JPEG", exif=exif)

    return save


def truncated(path: Path) -> None:
    picture().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def palette(path: Path) -> None:
    picture("P").save(path, transparency=3)


def animated(path: Path) -> None:
    picture().save(path, save_all=True, append_images=[picture(), picture()])


def bomb(path: Path) -> None:
    """Save an image of 20,000 x 20,000 pixels that takes only a few kilobytes."""
    Image.new("1", (20_000, 20_000)).save(path)


USABLE: dict[str, Callable[[Path], None]] = {
    **{f"orientation {number}.jpg": rotated(number) for number in range(1, 9)},
    "cmyk.jpg": lambda path: picture("CMYK").save(path),
    "16 bit.png": lambda path: picture("L").convert("I").point(lambda value: value * 257).convert("I;16").save(path),
    "palette.png": palette,
    "animated.gif": animated,
    "animated.webp": animated,
    "one pixel.png": lambda path: Image.new("RGB", (1, 1)).save(path),
    "narrow.png": lambda path: Image.new("RGB", (12_000, 200)).save(path),
    "jpeg inside.png": lambda path: picture().save(path, "JPEG"),
    "with  spaces .png": lambda path: picture().save(path),
    "水墨画.png": lambda path: picture().save(path),
    "🐈.png": lambda path: picture().save(path),
    "-leading dash.png": lambda path: picture().save(path),
    "photo.jfif": lambda path: picture().save(path, "JPEG"),
    "scan.tiff": lambda path: picture().save(path),
    "old.bmp": lambda path: picture().save(path),
}
UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated.jpg": (truncated, "the file is incomplete"),
    "text.png": (lambda path: path.write_text("not a picture"), "not an image"),
    "empty.png": (lambda path: path.write_bytes(b""), "the file is empty"),
    "bomb.png": (bomb, "too"),
    "photo.heic": (lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 100), "HEIC"),
}
CAPTIONS: dict[str, bytes] = {
    "orientation 1.jpg": b"\xef\xbb\xbfwith a mark",
    "orientation 2.jpg": "国画, 山水".encode("gbk"),
    "orientation 3.jpg": b"two\r\nlines\r\n",
    "orientation 4.jpg": b"",
    "orientation 5.jpg": b"long " * 4_000,
    "orientation 6.jpg": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x81\xff\xff",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("awkward") / "猫 & dogs"
    folder.mkdir()
    for name, save in USABLE.items():
        save(folder / name)
    for name, (write, _) in UNUSABLE.items():
        write(folder / name)
    for name, content in CAPTIONS.items():
        (folder / name).with_suffix(".txt").write_bytes(content)
    (folder / "loop").symlink_to(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> ImageDataset:
    return load_dataset(DataSettings(train_data_dir=str(folder), trigger_word="sks"))


def test_all_that_is_usable_is_used(dataset: ImageDataset) -> None:
    assert {image.name for image in dataset.images} == set(USABLE)
    sizes = {image.name: (image.width, image.height) for image in dataset.images}
    assert all(sizes[f"orientation {number}.jpg"] == (SIZE if number < 5 else SIZE[::-1]) for number in range(1, 9))


def test_everything_else_is_named_with_its_reason(dataset: ImageDataset) -> None:
    report = dataset_report(dataset, resolution=64).text()
    for name, (_, reason) in UNUSABLE.items():
        line = next(line for line in report.splitlines() if name in line)
        assert reason in line
    assert "orientation 6.txt is not a text file" in report
    assert "orientation 5.jpg" in next(line for line in report.splitlines() if "tokens" in line and "more than" in line)


def test_captions_are_read_right(dataset: ImageDataset) -> None:
    captions = {image.name: image.caption for image in dataset.images}
    assert captions["orientation 1.jpg"] == "sks, with a mark"
    assert captions["orientation 2.jpg"] == "sks, 国画, 山水"
    assert captions["orientation 3.jpg"] == "sks, two lines"
    assert captions["orientation 4.jpg"] == captions["orientation 6.jpg"] == captions["🐈.png"] == "sks"
    assert captions["orientation 5.jpg"].startswith("sks, long long")


def test_every_image_can_be_shown_and_trained(dataset: ImageDataset) -> None:
    assert contact_sheet(dataset, resolution=64).width > 100
    for sample in dataset.examples(64):
        width, height = sample.size
        assert sample.views[0].pixels().shape == (height, width, 3)


def test_the_same_folder_gives_the_same_samples(folder: Path, dataset: ImageDataset) -> None:
    again = load_dataset(DataSettings(train_data_dir=str(folder), trigger_word="sks"))
    assert again.examples(64) == dataset.examples(64)
    assert again.fingerprint == dataset.fingerprint
