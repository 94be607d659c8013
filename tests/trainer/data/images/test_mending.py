"""A file that breaks a rule of its format but has every pixel is used; one that lacks pixels is refused and says so."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lora_crucible.data.images.decode import open_image
from lora_crucible.data.images.image_facts import find_facts
from lora_crucible.data.images.mend_png import PNG, chunks
from PIL import Image, ImageCms, PngImagePlugin

END = b"\xff\xd9"


def noise(width: int = 130, height: int = 90) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def flat() -> Image.Image:
    """Make an image whose last rows are of one colour, so that nothing of them tells whether they are missing."""
    image = noise(130, 160)
    image.paste("white", (0, 60, 130, 160))
    return image


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def error_of(folder: Path, data: bytes) -> str:
    (folder / "broken").write_bytes(data)
    return find_facts(folder / "broken").error


def used(folder: Path, data: bytes, whole: bytes) -> tuple[str, ...]:
    """Assert that a file shows what the whole one does, and return the notes about it."""
    (folder / "mended").write_bytes(data)
    (folder / "whole").write_bytes(whole)
    facts = find_facts(folder / "mended")
    assert facts.error == ""
    assert np.array_equal(open_image(folder / "mended"), open_image(folder / "whole"))
    return facts.notes


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("image", [noise(), flat(), noise().convert("L")], ids=["noise", "flat end", "grey"])
@pytest.mark.parametrize("rest", [b"", b"\xff", b"\r\n"], ids=["nothing", "half a mark", "newline"])
def test_a_jpeg_that_lacks_only_its_end_mark(
    tmp_path: Path, image: Image.Image, progressive: bool, rest: bytes
) -> None:
    whole = saved(image, "JPEG", quality=90, progressive=progressive)
    assert used(tmp_path, whole.removesuffix(END) + rest, whole) == ("end_missing",)
    assert used(tmp_path, whole + b"more", whole) == ()
    used(tmp_path, whole.removesuffix(END) + bytes(300), whole)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("cut", [60, 900, 9000])
@pytest.mark.parametrize("rest", [b"", bytes(5000)], ids=["nothing", "zeros"])
def test_a_jpeg_that_was_cut_off(tmp_path: Path, progressive: bool, cut: int, rest: bytes) -> None:
    whole = saved(noise(), "JPEG", quality=90, progressive=progressive)
    assert "the file is incomplete" in error_of(tmp_path, whole[:-cut] + rest)


def test_a_jpeg_that_was_cut_off_and_got_an_end_mark(tmp_path: Path) -> None:
    whole = saved(noise(), "JPEG", quality=90)
    assert "of its pixels are missing" in error_of(tmp_path, whole[: len(whole) // 2] + END)
    grey = noise()
    grey.paste((128, 128, 128), (0, 40, 130, 90))
    (tmp_path / "grey.jpg").write_bytes(saved(grey, "JPEG"))
    assert find_facts(tmp_path / "grey.jpg").error == ""


def test_a_png_with_much_text_and_a_large_profile(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(1_500_000)
    for compressed in (True, False):
        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("workflow", "node " * 400_000, zip=compressed)
        assert used(tmp_path, saved(noise(), "PNG", pnginfo=texts, icc_profile=profile), saved(noise(), "PNG")) == ()


def test_the_profile_of_a_png_with_much_text_counts(tmp_path: Path) -> None:
    """The profile in this test swaps the red and the green channel."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "node " * 400_000)
    red = Image.new("RGB", (16, 16), "red")
    (tmp_path / "a.png").write_bytes(saved(red, "PNG", pnginfo=texts, icc_profile=swapped))
    assert np.abs(np.subtract(open_image(tmp_path / "a.png").getpixel((8, 8)), (0, 255, 0))).max() <= 3


def test_transparency_stays_when_a_png_is_mended(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "node " * 400_000)
    palette = noise().quantize(16)
    plain = saved(palette, "PNG", transparency=3)
    assert used(tmp_path, saved(palette, "PNG", transparency=3, pnginfo=texts), plain) == ()


def rebuilt(data: bytes, **damage: bytes) -> bytes:
    """Return a PNG in which the named chunk has other content, and all have a right checksum."""

    def parts() -> Iterator[bytes]:
        for kind, content, _ in chunks(data):
            content = damage.get(kind.decode(), content)
            yield struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return PNG + b"".join(parts())


def test_pngs_with_wrong_checksums(tmp_path: Path) -> None:
    """One of the two checksums of pixels may be wrong; if both are, the pixels are."""
    whole = saved(noise(), "PNG")
    stream = b"".join(content for kind, content, _ in chunks(whole) if kind == b"IDAT")
    assert used(tmp_path, rebuilt(whole, IDAT=stream[:-1] + bytes([stream[-1] ^ 1])), whole) == ("checksum",)
    wrong_chunk = bytearray(whole)
    wrong_chunk[whole.index(b"IEND") - 5] ^= 1
    assert used(tmp_path, bytes(wrong_chunk), whole) == ()
    for place in (len(whole) // 3, len(whole) // 2, len(whole) - 200):
        damaged = bytearray(whole)
        damaged[place] ^= 255
        assert "damaged" in error_of(tmp_path, bytes(damaged))


def test_pngs_that_were_cut_off(tmp_path: Path) -> None:
    whole = saved(noise(), "PNG")
    assert used(tmp_path, whole[:-12], whole) == ()
    assert used(tmp_path, b"\r\n" + whole, whole) == ()
    for share in (0.3, 0.5, 0.99):
        assert "pixels are missing" in error_of(tmp_path, whole[: int(len(whole) * share)])


@pytest.mark.parametrize("lossless", [False, True])
def test_webps_that_were_cut_off(tmp_path: Path, lossless: bool) -> None:
    whole = saved(noise(), "WEBP", lossless=lossless)
    assert used(tmp_path, whole + b"more", whole) == ()
    with_facts = saved(noise(), "WEBP", lossless=lossless, exif=b"Exif\0\0II*\0\x08\0\0\0" + bytes(3000))
    assert used(tmp_path, with_facts[:-500], whole) == ()
    assert "pixels are missing" in error_of(tmp_path, whole[: len(whole) // 2])


@pytest.mark.parametrize("form", ["BMP", "TIFF", "TGA", "PPM"])
def test_other_files_that_were_cut_off(tmp_path: Path, form: str) -> None:
    whole = saved(noise(), form)
    assert "the file is incomplete" in error_of(tmp_path, whole[: len(whole) // 2])


def test_an_animation_that_was_cut_off_after_its_first_frame(tmp_path: Path) -> None:
    frames = [noise(), noise().transpose(Image.Transpose.ROTATE_180)]
    whole = saved(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:])
    assert used(tmp_path, whole[:-300], whole) == ()
