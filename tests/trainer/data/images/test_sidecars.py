"""Caption files are matched to images by name, and where there is doubt, to none."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from lora_crucible.data.images.sidecars import caption_files, match_captions


def matched(images: list[str], *texts: str) -> dict[str, list[str]]:
    found = match_captions([Path(name) for name in images], map(Path, texts))
    return {image.name: [text.name for text in those] for image, those in found.items()}


@pytest.mark.parametrize(
    "text",
    [
        "photo.txt",
        "photo.jpg.txt",
        "photo.txt.txt",
        "PHOTO.TXT",
        "Photo.Caption",
        "photo .txt",
        " photo.txt",
        "photo.txt ",
    ],
)
def test_spellings_of_a_name(text: str) -> None:
    assert matched(["photo.jpg", "other.png"], text) == {"photo.jpg": [text]}


def test_accented_letters_in_either_form() -> None:
    image, text = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFD", "NFC"))
    assert matched([f"{image}.jpg"], f"{text}.txt") == {f"{image}.jpg": [f"{text}.txt"]}


def test_order_of_precedence() -> None:
    assert matched(["a.jpg"], "a.caption", "a.TXT", "a.jpg.txt", "a.txt") == {
        "a.jpg": ["a.txt", "a.TXT", "a.caption", "a.jpg.txt"]
    }


def test_a_spelling_does_not_count_beside_the_name_itself() -> None:
    assert matched(["a.jpg"], "a.txt", "A .txt", "a.txt.txt") == {"a.jpg": ["a.txt"]}


def test_a_spelling_of_two_images_is_that_of_none() -> None:
    assert matched(["a.jpg", "A.png"], "a .txt") == {}
    assert matched(["a.jpg", "A.png"], "A.txt") == {"A.png": ["A.txt"]}


def test_images_that_differ_in_their_endings() -> None:
    assert matched(["a.jpg", "a.png"], "a.txt", "a.png.txt") == {"a.jpg": ["a.txt"], "a.png": ["a.txt", "a.png.txt"]}


def test_of_files_on_disk(tmp_path: Path) -> None:
    for name in ("a.jpg", "A.TXT", "sub/b.png", "sub/b.png.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    images = [tmp_path / "a.jpg", tmp_path / "sub/b.png", tmp_path / "none/c.png"]
    assert caption_files(images) == {
        images[0]: (tmp_path / "A.TXT",),
        images[1]: (tmp_path / "sub/b.png.txt",),
        images[2]: (),
    }
