"""Opens image files of every awkward kind as plain RGB."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from ...errors import CrucibleError

MOST_PIXELS = 178_956_970
"""Larger images are refused: Pillow's own limit, which programs around us may have lifted."""

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels."""

ORIENTATION_TAG = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

FOREIGN_FILES = (
    (b"ftypheic", "a HEIC photo; export it as JPEG or PNG"),
    (b"ftypheix", "a HEIC photo; export it as JPEG or PNG"),
    (b"ftypmif1", "a HEIF photo; export it as JPEG or PNG"),
    (b"<!doctype html", "a web page, not an image; download the image itself"),
    (b"<html", "a web page, not an image; download the image itself"),
    (b"git-lfs.github.com", "a Git LFS pointer, not the image; run git lfs pull"),
)
"""What is found in files that carry an image's extension, in lower case, within the first 64 bytes."""


class UnreadableImage(CrucibleError):
    """An image file that cannot be used. `reason` says why, without the file's name."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"The image {path} cannot be read: {reason}. Replace it, or take it out of the folder.")
        self.reason = reason


def open_image(path: Path, *, at_least: int | None = None) -> Image.Image:
    """Opens the first frame of an image as 8-bit RGB, upright, in sRGB, with transparency on white.

    Args:
        at_least: pixels of each side that are enough; a larger JPEG is then decoded faster, to a half, a
            quarter or an eighth of its size.

    Raises:
        UnreadableImage: it is missing, broken, truncated, too large, or not an image.
    """
    with reading(path) as image:
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        image.load()
        return _to_rgb(_upright(image))


def load_pixels(
    path: Path, size: tuple[int, int], crop: tuple[float, float] = (0.5, 0.5), *, mirrored: bool = False
) -> Tensor:
    """Loads an image, scaled to cover `size` and cropped to it.

    Args:
        size: width and height in pixels.
        crop: which part of what is cropped off lies to the left and at the top, 0 to 1.

    Returns:
        float32 (height, width, 3), values 0 to 1.

    Raises:
        UnreadableImage: as `open_image`.
    """
    image = fit(open_image(path), size, crop)
    return torch.from_numpy(np.array(ImageOps.mirror(image) if mirrored else image, dtype=np.float32) / 255)


def load_mask(
    path: Path,
    size: tuple[int, int],
    crop: tuple[float, float] = (0.5, 0.5),
    *,
    mirrored: bool = False,
    from_alpha: bool = False,
) -> Tensor:
    """Loads a mask as `load_pixels` loads its image: grey values, or the alpha channel.

    Returns:
        float32 (height, width), values 0 to 1.

    Raises:
        UnreadableImage: as `open_image`.
    """
    if from_alpha:
        with reading(path) as image:
            image.load()
            mask = _upright(image).convert("RGBA").getchannel("A")
    else:
        mask = open_image(path).convert("L")
    mask = fit(mask, size, crop)
    return torch.from_numpy(np.array(ImageOps.mirror(mask) if mirrored else mask, dtype=np.float32) / 255)


def fit(image: Image.Image, size: tuple[int, int], crop: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """Scales an image (Lanczos) to cover `size`, width and height in pixels, and crops it at `crop`."""
    return ImageOps.fit(image, size, method=Image.Resampling.LANCZOS, centering=crop)


@contextmanager
def reading(path: Path) -> Iterator[Image.Image]:
    """Opens an image file; whatever Pillow raises over a broken one becomes `UnreadableImage`."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                size = f"{image.width} x {image.height} pixels"
                raise UnreadableImage(path, f"it is {size}, too large to load; scale it down")
            yield image
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # decoders raise SyntaxError, struct.error, ValueError and more
        raise UnreadableImage(path, _reason(path, error)) from error


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MOST_PIXELS:,} pixels, too many to load; scale it down"
    try:
        with path.open("rb") as file:
            head = file.read(64).lower()
    except OSError as problem:
        return f"the file cannot be opened ({problem.strerror or problem})"
    if not head:
        return "the file is empty"
    for mark, what in FOREIGN_FILES:
        if mark in head:
            return f"it is {what}"
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image, or of a kind that is not known here"
    return f"the file is damaged or incomplete ({error})"


def orientation(image: Image.Image) -> int:
    """EXIF's number of how an image lies, 1 for upright."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a broken EXIF block does not make the image unreadable
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF rotation, as `ImageOps.exif_transpose`, which fails on broken EXIF blocks."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = turns.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_8_bit(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(white, image)
    elif image.mode not in ("RGB", "CMYK", "L"):
        image = image.convert("RGB")
    if profile and image.mode in ("RGB", "RGBA", "CMYK"):
        image = _to_srgb(image, profile)
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scales grey values of 16 bits (which Pillow would clip at 255) or floats from 0 to 1 down to 8 bits."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode == "F":
        values = values * 255 if values.max() <= 1 else values
    elif image.mode != "I" or values.max() > 255:
        values = values / 257
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Converts colours from the profile that the file carries; leaves them alone where it is unusable."""
    mode = "CMYK" if image.mode == "CMYK" else "RGB"
    image = image.convert(mode)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return image if converted is None else converted
