"""A file is known by its ending, or by its first bytes where the ending says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.data.ignored_names import is_about_the_folder, is_rubbish
from lora_crucible.data.images.file_kinds import is_image, unread_image
from PIL import Image


@pytest.mark.parametrize("name", ["a.jp2", "a.TGA", "a.sgi", "a.psd", "a.icns", "a.jfif", "a.PNG "])
def test_what_pillow_reads_is_an_image(name: str) -> None:
    assert is_image(Path(name))
    assert not unread_image(Path(name))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("name", ["photo", "photo.jpg_large", "photo.orig"])
def test_images_under_other_names(tmp_path: Path, form: str, name: str) -> None:
    path = tmp_path / name
    Image.new("RGB", (8, 8)).save(path, form)
    assert is_image(path)


@pytest.mark.parametrize("content", [b"BMW is a car, and this is a text", b"", b"GIVE"])
def test_texts_without_ending_are_no_images(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "notes").write_bytes(content)
    assert not is_image(tmp_path / "notes")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.JXL", b"", "JPEG XL"),
        ("a.nef", b"", "a raw photo"),
        ("a.heic", b"", "a HEIC photo"),
        ("a", b"\xff\x0a12345", "JPEG XL"),
        ("a.orig", b"\0\0\0\x18ftypheic....", "a HEIC photo"),
        ("a.pdf", b"", "a PDF"),
        ("a.mp4", b"", ""),
    ],
)
def test_images_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert unread_image(tmp_path / name) == kind
    assert not is_image(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "rubbish"),
    [
        ("Thumbs.db", True),
        ("THUMBS.DB", True),
        (".DS_Store", True),
        ("._a.jpg", True),
        ("@eaDir", True),
        ("$RECYCLE.BIN", True),
        ("Icon\r", True),
        ("a.txt.bak2", True),
        ("a.png~", True),
        ("a.png", False),
        ("Icon.png", False),
        ("bakery.txt", False),
    ],
)
def test_what_systems_leave_behind(name: str, rubbish: bool) -> None:
    assert is_rubbish(name) == rubbish


@pytest.mark.parametrize(
    ("name", "about"),
    [
        ("README.txt", True),
        ("readme_zh.txt", True),
        ("LICENSE", True),
        ("read me.txt", True),
        ("readme_girl.txt", False),
    ],
)
def test_texts_about_a_folder(name: str, about: bool) -> None:
    assert is_about_the_folder(Path(name)) == about
