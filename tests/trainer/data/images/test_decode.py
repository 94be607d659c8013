"""Unusual image files look as they do in an image viewer; broken ones are rejected by name."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lora_crucible.data.images import decode as images
from lora_crucible.data.images.decode import UnreadableImage, load_mask, load_pixels, open_image
from lora_crucible.data.images.image_facts import find_facts
from PIL import Image

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
RGB = tuple[int, int, int]


def picture(mode: str = "RGB") -> Image.Image:
    """Make an image of 40 x 20 pixels, red on the left and blue on the right."""
    image = Image.new("RGB", (40, 20), RED)
    image.paste(BLUE, (20, 0, 40, 20))
    return image.convert(mode)


def size_of(path: Path) -> tuple[int, int]:
    facts = find_facts(path)
    return facts.width, facts.height


def colours(path: Path) -> tuple[RGB, RGB]:
    """Return the colours at the centres of the left and the right half."""
    image = open_image(path)
    assert image.mode == "RGB"
    assert size_of(path) == image.size
    y = image.height // 2
    left, right = image.getpixel((image.width // 4, y)), image.getpixel((image.width * 3 // 4, y))
    return left, right  # type: ignore[return-value]


def near(found: tuple[RGB, RGB], expected: tuple[RGB, RGB], tolerance: int) -> bool:
    return bool(np.abs(np.subtract(found, expected)).max() <= tolerance)


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.jpeg", "a.webp", "a.bmp", "a.tif", "a b.TIFF", "猫 é.png"])
def test_usual_formats(tmp_path: Path, name: str) -> None:
    picture().save(tmp_path / name, **({"quality": 95} if name[-1] in "Ggp" else {}))
    assert near(colours(tmp_path / name), (RED, BLUE), 12)


def test_the_content_counts_not_the_extension(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg", format="PNG")
    assert colours(tmp_path / "a.jpg") == (RED, BLUE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path: Path, orientation: int) -> None:
    """The image is stored turned, so that the upright one is red on the left and blue on the right."""
    stored_as = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = picture()
    if orientation in stored_as:
        image = image.transpose(stored_as[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    assert open_image(tmp_path / "a.jpg").size == (40, 20)
    assert near(colours(tmp_path / "a.jpg"), (RED, BLUE), 8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_lose_the_picture(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f", quality=95)
    assert near(colours(tmp_path / "a.jpg"), (RED, BLUE), 12)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    picture("CMYK").save(tmp_path / "a.jpg", quality=95, subsampling=0)
    assert near(colours(tmp_path / "a.jpg"), (RED, BLUE), 12)


def test_16_bit_colour(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">3H", 0xFFFF, 0x8080, 0) * 4 + struct.pack(">3H", 0, 0, 0xFFFF) * 4
    header = struct.pack(">2I5B", 8, 4, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(png(header, zlib.compress(row * 4)))
    assert colours(tmp_path / "a.png") == ((255, 128, 0), BLUE)


def rgba(path: Path) -> None:
    image = picture("RGBA")
    image.paste((*BLUE, 0), (20, 0, 40, 20))
    image.save(path)


def grey_alpha(path: Path) -> None:
    image = Image.new("LA", (40, 20), (0, 255))
    image.paste((0, 0), (20, 0, 40, 20))
    image.save(path)


def palette(path: Path) -> None:
    image = Image.new("P", (40, 20), 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (20, 0, 40, 20))
    image.save(path, transparency=1)


def colour_key(path: Path) -> None:
    picture().save(path, transparency=BLUE)


@pytest.mark.parametrize("save", [rgba, grey_alpha, palette, colour_key])
def test_transparent_pixels_become_white(tmp_path: Path, save: Callable[[Path], None]) -> None:
    save(tmp_path / "a.png")
    left = BLACK if save is grey_alpha else RED
    assert colours(tmp_path / "a.png") == (left, WHITE)


def test_half_transparent_pixels_are_mixed_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 20), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert near(colours(tmp_path / "a.png"), ((127,) * 3, (127,) * 3), 1)


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.tif"])
def test_first_frame_of_an_animation(tmp_path: Path, name: str) -> None:
    picture().save(tmp_path / name, save_all=True, append_images=[Image.new("RGB", (40, 20), GREEN)], lossless=True)
    assert colours(tmp_path / name) == (RED, BLUE)


@pytest.mark.parametrize("size", [(1, 1), (3, 2000)])
def test_tiny_and_narrow_images(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, GREEN).save(tmp_path / "a.png")
    assert size_of(tmp_path / "a.png") == size
    assert load_pixels(tmp_path / "a.png", (64, 128))[5, 5].tolist() == [0, 1, 0]


def png(header: bytes, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tif", "a.gif", "a.tga"])
def test_truncated_files_are_refused(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / name
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableImage) as error:
        open_image(path)
    assert find_facts(path).error
    assert str(path) in str(error.value)
    assert "incomplete" in error.value.reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"just words", "not an image"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (png(struct.pack(">2I5B", 20_000, 20_000, 8, 2, 0, 0, 0), b""), "too many to load"),
        (png(struct.pack(">2I5B", 8, 8, 8, 2, 0, 0, 0), b"junk"), "damaged or incomplete"),
        (b"II*\0\x08\0\0\0\0\0" + bytes(20), "a TIFF of a kind"),
        (b"\xff\x0a" + bytes(30), "JPEG XL"),
        (b'{"error": 404}', "a JSON file"),
        (bytes(400), "empty but for zeros"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=rf"photo\.jpg cannot be read: .*{reason}.*Replace it"):
        open_image(path)
    assert reason in find_facts(path).error


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="cannot be opened"):
        open_image(tmp_path / "a.png")


def test_the_size_limit_holds_when_pillows_is_lifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(images, "MOST_PIXELS", 799)
    picture().save(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match="40 x 20 pixels, too large"):
        open_image(tmp_path / "a.png")


def test_a_large_jpeg_can_be_decoded_smaller(tmp_path: Path) -> None:
    picture().resize((800, 400), Image.Resampling.NEAREST).save(tmp_path / "a.jpg", quality=95)
    small = open_image(tmp_path / "a.jpg", at_least=90)
    assert small.size == (200, 100)
    assert near((small.getpixel((50, 50)), small.getpixel((150, 50))), (RED, BLUE), 4)
    assert open_image(tmp_path / "a.jpg").size == (800, 400)


def test_pixels_cover_the_size_and_are_cropped_around_the_centre(tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 100), RED)
    image.paste(GREEN, (100, 0, 200, 100))
    image.save(tmp_path / "a.png")
    pixels = load_pixels(tmp_path / "a.png", (64, 64))
    assert (pixels.shape, pixels.dtype) == ((64, 64, 3), torch.float32)
    assert torch.allclose(pixels[2:-2, 2:-2], torch.tensor([0.0, 1.0, 0.0]), atol=0.02)
    assert load_pixels(tmp_path / "a.png", (96, 32)).shape == (32, 96, 3)


def test_pixels_that_fit_are_not_touched(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert torch.equal(load_pixels(tmp_path / "a.png", (48, 32)), torch.from_numpy(noise) / 255)


def test_crops_and_mirror_images(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")  # red on the left, blue on the right
    assert load_pixels(tmp_path / "a.png", (20, 20), (0.0, 0.0))[0, 0].tolist() == [1, 0, 0]
    assert load_pixels(tmp_path / "a.png", (20, 20), (1.0, 0.0))[0, 0].tolist() == [0, 0, 1]
    assert load_pixels(tmp_path / "a.png", (40, 20), mirrored=True)[0, 0].tolist() == [0, 0, 1]


def test_masks_from_grey_and_alpha(tmp_path: Path) -> None:
    mask = Image.new("L", (40, 20), 0)
    mask.paste(255, (0, 0, 20, 20))
    mask.save(tmp_path / "a.mask.png")
    covered = picture()
    covered.putalpha(mask)
    covered.save(tmp_path / "a.png")
    for path, from_alpha in ((tmp_path / "a.mask.png", False), (tmp_path / "a.png", True)):
        found = load_mask(path, (40, 20), from_alpha=from_alpha)
        assert found.shape == (20, 40)
        assert found[:, :18].min() == 1
        assert found[:, 22:].max() == 0
        assert torch.equal(load_mask(path, (40, 20), from_alpha=from_alpha, mirrored=True), found.flip(1))
