"""The images of a folder are found in the same order everywhere, and an unusable folder is explained."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.data.images.scan import find_images
from lora_crucible.data.listing import signature
from lora_crucible.errors import CrucibleError


def names(folder: Path) -> list[str]:
    return [image.name for image in find_images(folder)]


def touch(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"x")


def error_of(folder: Path) -> str:
    with pytest.raises(CrucibleError) as error:
        find_images(folder)
    return str(error.value)


def test_order_is_natural_and_ignores_case(tmp_path: Path) -> None:
    files = [
        "10.png",
        "2.png",
        "B.jpg",
        "a (2).webp",
        "a (10).webp",
        "c.JPEG",
        "é.png",
        "水 1.TIFF",
        "02.png",
    ]
    touch(tmp_path, *files)
    expected = [
        "02.png",
        "2.png",
        "10.png",
        "a (2).webp",
        "a (10).webp",
        "B.jpg",
        "c.JPEG",
        "é.png",
        "水 1.TIFF",
    ]
    assert names(tmp_path) == expected


def test_only_images_of_the_folder_itself_count(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.txt", "notes.md", ".hidden.png", "._a.png", "sub/b.png", "movie.png/frame.bmp")
    assert names(tmp_path) == ["a.png"]


def test_missing_folder_names_the_nearest(tmp_path: Path) -> None:
    touch(tmp_path, "my images/a.png")
    error = error_of(tmp_path / "my_image")
    assert str(tmp_path / "my_image") in error
    assert f"A similar path exists: {tmp_path / 'my images'}." in error
    assert f"A similar path exists: {tmp_path / 'my images'}." in error_of(tmp_path / "my-imges" / "deeper")
    assert f"nearest folder that exists is {tmp_path}." in error_of(tmp_path / "zzz" / "a" / "b")


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    assert f"is a file. Give the folder that contains the images: {tmp_path}" in error_of(tmp_path / "a.png")


def test_a_folder_without_images_says_what_is_there(tmp_path: Path) -> None:
    assert "it is empty" in error_of(tmp_path)
    touch(tmp_path, "a.svg", "b.SVG", "c.mp4")
    assert "2 .svg, 1 .mp4" in error_of(tmp_path)
    touch(tmp_path, "aki/a.png", "aki/b.png", "reg/c.png", "empty/notes.txt")
    error = error_of(tmp_path)
    assert "aki (2), reg (1)" in error
    assert error.endswith(str(tmp_path / "aki"))


def test_repeat_folders_are_read_with_their_number(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "z.png",
        "10_cat/2.png",
        "10_cat/10.png",
        "3_dog/a.jpg",
        "dogs/a.jpg",
        "0_none/a.png",
        "5_x/deep/a.png",
    )
    found = {image.name: image.repeats for image in find_images(tmp_path)}
    assert found == {"3_dog/a.jpg": 3, "10_cat/2.png": 10, "10_cat/10.png": 10, "z.png": 1}
    assert list(found)[:1] == ["3_dog/a.jpg"]


def test_links_in_a_circle_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "cats"
    touch(folder, "1.png", "../stray.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    for name, target in (("5_loop", "5_loop"), ("6_here", "."), ("7_above", "..")):
        (folder / name).symlink_to(target, target_is_directory=True)
    assert names(folder) == ["1.png"]
    assert signature(folder)


def test_masks_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.mask.png", "b [1].png", "b [1]-masklabel.png", "c.mask.png")
    assert {image.name: image.mask and image.mask.name for image in find_images(tmp_path)} == {
        "a.jpg": "a.mask.png",
        "b [1].png": "b [1]-masklabel.png",
    }


def test_signature_follows_subfolders_and_metadata(tmp_path: Path) -> None:
    touch(tmp_path, "10_cat/a.png")
    seen = {signature(tmp_path)}
    touch(tmp_path, "10_cat/a.txt")
    seen.add(signature(tmp_path))
    touch(tmp_path, "metadata.csv")
    seen.add(signature(tmp_path))
    assert len(seen) == 3
