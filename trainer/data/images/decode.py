"""Loading image files of every kind as plain RGB."""

from __future__ import annotations

import hashlib
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
"""The largest image that is accepted. This is Pillow's own limit, which other code in the process may have lifted."""

BACKGROUND = (255, 255, 255)
"""The colour that shows through transparent pixels."""

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
"""Marks, in lower case, within the first 64 bytes of files with an image's extension that are something else."""


class UnreadableImage(CrucibleError):
    """The error raised for an image file that cannot be used; its `reason` says why, without the file's name."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"The image {path} cannot be read: {reason}. Replace it, or remove it from the folder.")
        self.reason = reason


def unchanged(path: Path, content: str) -> bytes:
    """Read an image file that was checked before, and return its bytes.

    Args:
        content: the SHA-256 hash that the file had when it was checked.

    Raises:
        UnreadableImage: the file cannot be read.
        CrucibleError: the file has changed since.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImage(path, _reason(path, error)) from error
    if hashlib.sha256(data).hexdigest() != content:
        raise CrucibleError(
            f"The file {path} was changed after it had been checked, so something other than what was checked would be "
            "trained. Start again when the images stay as they are; everything that is already encoded is kept."
        )
    return data


def open_image(path: Path, *, at_least: int | None = None, data: bytes | None = None) -> Image.Image:
    """Open the first frame of an image as 8-bit RGB, upright, in sRGB, with transparency on white.

    Args:
        at_least: the number of pixels that is enough for each side; a larger JPEG is then decoded faster, at a half, a
            quarter or an eighth of its size.
        data: the bytes of the file, if they have been read.

    Raises:
        UnreadableImage: the file is missing, broken, truncated, too large, or not an image.
    """
    with reading(path, data) as image:
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        image.load()
        return _to_rgb(_upright(image))


def load_pixels(
    path: Path,
    size: tuple[int, int],
    crop: tuple[float, float] = (0.5, 0.5),
    *,
    mirrored: bool = False,
    data: bytes | None = None,
) -> Tensor:
    """Load the pixels of an image, scaled to cover `size` and cropped to it.

    Args:
        size: the width and height in pixels.
        crop: the fractions of what is cropped off that are taken from the left and from the top, 0 to 1.
        mirrored: whether the result is mirrored horizontally.
        data: the bytes of the file, if they have been read.

    Returns:
        The pixels as a float32 tensor of shape (height, width, 3), with values from 0 to 1.

    Raises:
        UnreadableImage: the file cannot be used, as in `open_image`.
    """
    image = fit(open_image(path, data=data), size, crop)
    return torch.from_numpy(np.array(ImageOps.mirror(image) if mirrored else image, dtype=np.float32) / 255)


def load_mask(
    path: Path,
    size: tuple[int, int],
    crop: tuple[float, float] = (0.5, 0.5),
    *,
    mirrored: bool = False,
    from_alpha: bool = False,
    data: bytes | None = None,
) -> Tensor:
    """Load a mask, scaled and cropped as `load_pixels` does with its image.

    Args:
        size: the width and height in pixels.
        crop: the fractions of what is cropped off that are taken from the left and from the top, 0 to 1.
        mirrored: whether the result is mirrored horizontally.
        from_alpha: whether the mask is the alpha channel of the file instead of its grey values.
        data: the bytes of the file, if they have been read.

    Returns:
        The mask as a float32 tensor of shape (height, width), with values from 0 to 1.

    Raises:
        UnreadableImage: the file cannot be used, as in `open_image`.
    """
    if from_alpha:
        with reading(path, data) as image:
            image.load()
            mask = _upright(image).convert("RGBA").getchannel("A")
    else:
        mask = open_image(path, data=data).convert("L")
    mask = fit(mask, size, crop)
    return torch.from_numpy(np.array(ImageOps.mirror(mask) if mirrored else mask, dtype=np.float32) / 255)


def fit(image: Image.Image, size: tuple[int, int], crop: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """Scale an image (Lanczos) to cover `size`, its width and height in pixels, and crop it to that at `crop`."""
    return ImageOps.fit(image, size, method=Image.Resampling.LANCZOS, centering=crop)


@contextmanager
def reading(path: Path, data: bytes | None = None) -> Iterator[Image.Image]:
    """Open an image file, and turn whatever Pillow raises for a broken one into `UnreadableImage`.

    Args:
        data: the bytes of the file, if they have been read.
    """
    try:
        with Image.open(path if data is None else io.BytesIO(data)) as image:
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
        return "it is not an image, or its format is not supported"
    return f"the file is damaged or incomplete ({error})"


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, which is 1 if it is upright."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a broken EXIF block does not make the image unreadable
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF rotation, like `ImageOps.exif_transpose`, which fails on broken EXIF blocks."""
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
    """Scale grey values to 8 bits, from 16 bits (which Pillow would clip at 255) or from floats from 0 to 1."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode == "F":
        values = values * 255 if values.max() <= 1 else values
    elif image.mode != "I" or values.max() > 255:
        values = values / 257
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert colours from the file's embedded profile to sRGB; an unusable profile is ignored."""
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
