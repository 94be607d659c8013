"""A folder without images of its own says where they are, or what to do with what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.data.images.scan import find_images
from lora_crucible.errors import CrucibleError


def error_of(folder: Path, *files: str) -> str:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"x")
    with pytest.raises(CrucibleError) as error:
        find_images(folder)
    return str(error.value)


@pytest.mark.parametrize("inner", ["img", "image", "train", "my cat", "a/b/images"])
def test_the_folder_that_was_meant_is_named_whole(tmp_path: Path, inner: str) -> None:
    masks = [f"masks/{number}.png" for number in range(5)]
    regularization = [f"reg/1_man/{number}.png" for number in range(9)]
    error = error_of(tmp_path, f"{inner}/10_cat/1.png", *masks, *regularization, "log/x.log")
    assert error.endswith(f"for example {tmp_path / inner}")


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("pictures.zip", "Unpack the archive there"),
        ("a.cr2", "(a raw photo). Export them as PNG or JPEG"),
        ("a.mov", "Save the frames"),
        ("a.txt", "Put images (.png, .jpg"),
        ("data/train-00000-of-00001.parquet", "Save the images in these tables as files"),
    ],
)
def test_the_remedy_suits_what_is_there(tmp_path: Path, file: str, remedy: str) -> None:
    error = error_of(tmp_path, file)
    assert f"only 1 {Path(file).suffix}" in error
    assert remedy in error
