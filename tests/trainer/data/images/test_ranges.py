"""Numbers of more than 8 bits keep their brightness, by what the file says is black and white."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lora_crucible.data.images.decode import open_image
from lora_crucible.data.images.image_facts import find_facts
from PIL import Image

LEVELS = np.repeat(np.arange(0, 256, 5, dtype=np.float64)[None], 8, axis=0)
BITS, MEANING, MOST, FORMAT, LEAST_ANY, MOST_ANY = 258, 262, 281, 339, 340, 341
SIGNED, FLOAT = 2, 3


def tiff(path: Path, values: np.ndarray[Any, Any], **tags: float | bytes) -> Path:
    """Write an uncompressed grey TIFF with more tags, by their numbers."""
    kind = {"u": 1, "i": SIGNED, "f": FLOAT}[values.dtype.kind]
    height, width = values.shape
    usual = {256: width, 257: height, BITS: values.itemsize * 8, 259: 1, MEANING: 1, 273: 1024, 277: 1, 278: height}
    entries = {**usual, 279: values.nbytes, FORMAT: kind, **{int(name[1:]): value for name, value in tags.items()}}
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, value in sorted(entries.items()):
        if isinstance(value, float):
            head += struct.pack("<HHIf", tag, 11, 1, value)
        else:
            head += struct.pack("<HHII", tag, 4, 1, int(value))
    path.write_bytes((head + bytes(4)).ljust(1024, b"\0") + values.tobytes())
    return path


def far_from(path: Path, expected: np.ndarray[Any, Any]) -> int:
    found = np.asarray(open_image(path).convert("L"), dtype=int)
    return int(np.abs(found - np.rint(np.clip(expected, 0, 255))).max())


def integers(most: float, dtype: type) -> np.ndarray[Any, Any]:
    return np.asarray(np.rint(LEVELS / 255 * most).astype(dtype))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bits(tmp_path: Path, ending: str) -> None:
    Image.fromarray(integers(65535, np.uint16)).save(tmp_path / f"a.{ending}")
    assert far_from(tmp_path / f"a.{ending}", LEVELS) == 0
    assert find_facts(tmp_path / f"a.{ending}").notes == ()


@pytest.mark.parametrize(
    ("dtype", "most"),
    [(np.int8, 127), (np.int16, 32767), (np.uint16, 65535), (np.int32, 2**31 - 1), (np.uint32, 2**32 - 1)],
)
def test_integers_of_every_kind(tmp_path: Path, dtype: type, most: int) -> None:
    path = tiff(tmp_path / "a.tif", integers(most, dtype))
    assert far_from(path, LEVELS) <= 1
    assert find_facts(path).notes == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_where_zero_is_white(tmp_path: Path, dtype: type) -> None:
    most = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    stored = (most - LEVELS / 255 * most).astype(dtype)
    assert far_from(tiff(tmp_path / "a.tif", stored, _262=0), LEVELS) == 0


def test_a_file_that_says_what_is_white(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", integers(4095, np.uint16), _281=4095)
    assert far_from(path, LEVELS) == 0
    assert find_facts(path).notes == ()
    path = tiff(tmp_path / "b.tif", (LEVELS / 255 * 4095).astype(np.float32), _340=0.0, _341=4095.0)
    assert far_from(path, LEVELS) == 0


@pytest.mark.parametrize("white", [1.0, 1.08, 1.9, 3.0])
def test_floats_from_0_to_1_with_highlights(tmp_path: Path, white: float) -> None:
    values = (LEVELS / 255 * white).astype(np.float32)
    path = tiff(tmp_path / "a.tif", values)
    assert far_from(path, LEVELS * white) <= 1
    assert find_facts(path).notes == ()


def test_a_few_bright_highlights_do_not_darken_a_picture(tmp_path: Path) -> None:
    values = (LEVELS / 255).astype(np.float32)
    values[0, :20] = 90
    expected = LEVELS.copy()
    expected[0, :20] = 255
    assert far_from(tiff(tmp_path / "a.tif", values), expected) == 0


@pytest.mark.parametrize("white", [255, 65535])
@pytest.mark.parametrize("black", [0, 0.95], ids=["everywhere", "mostly black"])
def test_a_guess_about_floats_is_said(tmp_path: Path, white: int, black: float) -> None:
    values = (LEVELS / 255 * white).astype(np.float32)
    dark = np.zeros(values.shape, bool)
    dark[:, : int(values.shape[1] * black)] = True
    values[dark] = 0
    path = tiff(tmp_path / "a.tif", values)
    assert far_from(path, np.where(dark, 0, LEVELS)) == 0
    assert find_facts(path).notes == (f"white_{white}",)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    values = (LEVELS / 255).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    expected = LEVELS.copy()
    expected[0, :3] = 0, 255, 0
    assert far_from(tiff(tmp_path / "a.tif", values), expected) == 0


@pytest.mark.parametrize(("most", "notes"), [(255, ("white_255",)), (65535, ("white_65535",))])
def test_a_guess_about_integers_is_said(tmp_path: Path, most: int, notes: tuple[str, ...]) -> None:
    path = tiff(tmp_path / "a.tif", integers(most, np.int32))
    assert far_from(path, LEVELS) == 0
    assert find_facts(path).notes == notes


def test_12_bits_stored_as_16_are_told(tmp_path: Path) -> None:
    """Whether that is a night or an error of a program cannot be known, so the file is taken at its word."""
    Image.fromarray(integers(4095, np.uint16)).save(tmp_path / "a.png")
    assert far_from(tmp_path / "a.png", LEVELS * 4095 / 65535) <= 1
    assert find_facts(tmp_path / "a.png").notes == ("nearly_black",)
