"""Colours are converted to sRGB by what the file says about them, and stay as they are if it says nothing."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from lora_crucible.data.images.colours import to_srgb
from lora_crucible.data.images.decode import open_image
from lora_crucible.data.images.icc import ADOBE_RGB, DISPLAY_P3, REC_2020, SRGB, matrix_profile, power_curve, srgb_curve
from lora_crucible.data.images.image_facts import find_facts
from PIL import Image, ImageCms

COLOUR = (200, 120, 60)
USUAL = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LINEAR = matrix_profile(SRGB, power_curve(1))


def plain(colour: int | tuple[int, ...], mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (16, 16), colour)


def shown(path: Path) -> tuple[int, int, int]:
    return open_image(path).getpixel((8, 8))  # type: ignore[return-value]


def near(found: tuple[int, ...], expected: tuple[int, ...], tolerance: int = 2) -> bool:
    return bool(np.abs(np.subtract(found, expected)).max() <= tolerance)


def linear(colour: tuple[int, ...]) -> tuple[int, ...]:
    light = srgb_curve(np.array(colour) / 255)
    return tuple(int(value) for value in np.rint(light * 255))


def grey_profile(gamma: float) -> bytes:
    """Return a profile for grey images, made of one for colours."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"c\0" + bytes(78), b"wtpt": white, b"kTRC": curve}
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = bytearray(LINEAR[:128])
    head[:4] = struct.pack(">I", start + len(body))
    head[16:20] = b"GRAY"
    return bytes(head) + table + body


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_linear_profile_is_converted_whatever_its_name(tmp_path: Path, mode: str) -> None:
    image = plain(linear(COLOUR))
    (image.quantize() if mode == "P" else image.convert(mode)).save(tmp_path / "a.png", icc_profile=LINEAR)
    assert near(shown(tmp_path / "a.png"), COLOUR, 3)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
@pytest.mark.parametrize(("gamma", "expected"), [(1.0, 188), (1.8, 146)])
def test_a_grey_profile_is_converted(tmp_path: Path, mode: str, gamma: float, expected: int) -> None:
    values = np.full((16, 16), 128 * 257, np.uint16)
    image = Image.fromarray(values) if mode == "I;16" else plain(128, "L").convert(mode)
    image.save(tmp_path / "a.png", icc_profile=grey_profile(gamma))
    assert near(shown(tmp_path / "a.png"), (expected,) * 3)


def test_a_colour_profile_of_a_grey_picture(tmp_path: Path) -> None:
    plain(55, "L").save(tmp_path / "a.png", icc_profile=LINEAR)
    assert near(shown(tmp_path / "a.png"), (128,) * 3)


def test_what_is_usual_changes_nothing(tmp_path: Path) -> None:
    for number, profile in enumerate((USUAL, matrix_profile(SRGB, srgb_curve), None)):
        plain(COLOUR).save(tmp_path / f"{number}.png", icc_profile=profile)
        assert shown(tmp_path / f"{number}.png") == COLOUR
        assert find_facts(tmp_path / f"{number}.png").notes == ()


@pytest.mark.parametrize(
    "profile", [b"no profile", USUAL[:200], grey_profile(1.0)], ids=["broken", "cut off", "for grey pictures"]
)
def test_a_profile_of_no_use_is_told(tmp_path: Path, profile: bytes) -> None:
    plain(COLOUR).save(tmp_path / "a.png", icc_profile=profile)
    assert shown(tmp_path / "a.png") == COLOUR
    assert find_facts(tmp_path / "a.png").notes == ("profile_ignored",)


def test_a_profile_for_colours_does_not_hurt_a_cmyk_picture(tmp_path: Path) -> None:
    plain(COLOUR).convert("CMYK").save(tmp_path / "a.jpg", icc_profile=USUAL, quality=95)
    assert near(shown(tmp_path / "a.jpg"), COLOUR, 8)


@pytest.mark.parametrize("primaries", [ADOBE_RGB, DISPLAY_P3, REC_2020])
def test_wide_colours(primaries: object) -> None:
    """Grey stays grey; a dull green is stored with smaller differences, and gets them back."""
    profile = matrix_profile(primaries, srgb_curve)  # type: ignore[arg-type]
    grey, note = to_srgb(plain((128, 128, 128)), profile)
    assert near(grey.getpixel((8, 8)), (128,) * 3)  # type: ignore[arg-type]
    red, green, _ = to_srgb(plain((110, 140, 110)), profile)[0].getpixel((8, 8))  # type: ignore[misc]
    assert green - red > 35
    assert note == ""


def with_chunk(path: Path, colour: tuple[int, ...], kind: bytes, content: bytes) -> Path:
    plain(colour).save(path)
    data = path.read_bytes()
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(data[:33] + chunk + data[33:])
    return path


@pytest.mark.parametrize(
    ("kind", "content", "stored"),
    [
        (b"gAMA", struct.pack(">I", 100_000), linear(COLOUR)),
        (b"gAMA", struct.pack(">I", 45_455), COLOUR),
        (b"gAMA", struct.pack(">I", 0), COLOUR),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000), COLOUR),
        (b"cHRM", bytes(32), COLOUR),
        (b"cICP", bytes([1, 13, 0, 1]), COLOUR),
        (b"cICP", bytes([1, 8, 0, 1]), linear(COLOUR)),
    ],
)
def test_what_a_png_says_in_numbers(tmp_path: Path, kind: bytes, content: bytes, stored: tuple[int, ...]) -> None:
    path = with_chunk(tmp_path / "a.png", stored, kind, content)
    assert near(shown(path), COLOUR, 3)
    assert find_facts(path).notes == ()


@pytest.mark.parametrize(("curve", "white"), [(16, 148), (18, 191)], ids=["PQ", "HLG"])
def test_hdr_pictures_keep_the_white_of_paper_and_are_told(tmp_path: Path, curve: int, white: int) -> None:
    path = with_chunk(tmp_path / "a.png", (white,) * 3, b"cICP", bytes([9, curve, 0, 1]))
    assert near(shown(path), (255,) * 3, 3)
    assert find_facts(path).notes == ("hdr",)


def test_an_avif_names_its_colours_too(tmp_path: Path) -> None:
    saved = io.BytesIO()
    plain((148, 148, 148)).save(saved, "AVIF", quality=100)
    data = bytearray(saved.getvalue())
    place = data.index(b"colrnclx") + 8
    data[place : place + 4] = struct.pack(">2H", 9, 16)
    (tmp_path / "a.avif").write_bytes(data)
    assert near(shown(tmp_path / "a.avif"), (255,) * 3, 6)
    assert find_facts(tmp_path / "a.avif").notes == ("hdr",)


def test_a_camera_that_says_adobe_rgb_in_the_facts_about_the_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    plain((110, 140, 110)).save(tmp_path / "a.jpg", exif=exif, quality=98)
    red, green, _ = shown(tmp_path / "a.jpg")
    assert green - red > 40
