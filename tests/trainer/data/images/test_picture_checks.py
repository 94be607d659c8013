"""Each fault of a picture is told once, under its own name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lora_crucible.data.images.image_facts import find_facts
from lora_crucible.data.images.picture_checks import NOTES, picture_findings
from lora_crucible.data.images.training_image import TrainingImage
from PIL import Image, ImageFilter

from .scenes import pictures


def findings(folder: Path, images: list[Image.Image]) -> dict[str, tuple[str, ...]]:
    found = []
    for number, image in enumerate(images):
        path = folder / f"{number:02}.png"
        image.save(path, compress_level=1)
        found.append(TrainingImage(path, path.name, ("a caption",), find_facts(path)))
    return {finding.kind: finding.images for finding in picture_findings(found)}


def test_a_blurred_and_a_blank_picture(tmp_path: Path) -> None:
    images = pictures("paintings", count=12)
    images[3] = images[3].filter(ImageFilter.GaussianBlur(8))
    images[5] = images[6] = Image.new("RGB", (512, 512), "white")
    assert findings(tmp_path, images) == {"blurred": ("03.png",), "blank": ("05.png", "06.png")}


def test_a_set_that_is_soft_all_over_is_as_it_should_be(tmp_path: Path) -> None:
    soft = [image.filter(ImageFilter.GaussianBlur(5)) for image in pictures("photos", count=12)]
    assert "blurred" not in findings(tmp_path, soft)


def test_an_odd_picture_is_a_note(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    grey = [Image.fromarray(random.integers(100, 120, (300, 300), dtype=np.uint8)) for _ in range(12)]
    grey[4] = Image.fromarray(random.integers(0, 256, (300, 300, 3), dtype=np.uint8))
    assert findings(tmp_path, grey) == {"style_outlier": ("04.png",)}


@pytest.mark.parametrize("note", NOTES)
def test_how_a_file_was_read_is_told_in_full(note: str, tmp_path: Path) -> None:
    severity, what, consequence, remedy = NOTES[note]
    assert severity in ("note", "warning")
    assert what[0].islower()
    for sentence in (consequence, remedy):
        assert sentence[0].isupper()
        assert sentence.endswith(".")


def test_several_files_are_told_together(tmp_path: Path) -> None:
    for name in "ab":
        values = np.random.default_rng(ord(name)).integers(0, 256, (64, 64)).astype(np.float32)
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
    paths = sorted(tmp_path.iterdir())
    found = picture_findings([TrainingImage(path, path.name, (), find_facts(path)) for path in paths])
    (finding,) = [one for one in found if one.kind == "file_white_255"]
    assert finding.text().startswith(
        "Each of 2 files does not say which number is white, and 255 was taken for it (a.tif"
    )
