"""Loading image files of every kind as plain RGB."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from ...errors import CrucibleError
from .mending import Mended, mended

MOST_PIXELS = 178_956_970
"""The largest image that is accepted. This is Pillow's own limit, which other code in the process may have lifted."""

BACKGROUND = (255, 255, 255)
"""The colour that shows through transparent pixels."""

FLOAT_TOPS = (1, 255, 65535)
"""The numbers that stand for white in float images."""

BRIGHT, HIGHLIGHTS = 0.9, 2.0
"""Float images are taken for those with the least white that this share of their numbers exceeds at most so many
times."""

UNNOTICED = 2
"""The difference of two colours, out of 255, that nobody sees."""

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


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        image: the first frame as 8-bit RGB, upright, in sRGB, with transparency on white.
        size: the width and height of the whole image in pixels; `image` may be smaller.
        alpha: the opacity of each pixel as an 8-bit grey image; None if every pixel is opaque.
        note: what had to be decided about how to read the file, as a phrase, or "".
    """

    image: Image.Image
    size: tuple[int, int]
    alpha: Image.Image | None
    note: str


def decoded(path: Path, data: bytes | None = None, *, at_least: int | None = None) -> Decoded:
    """Decode the first frame of an image.

    A file that breaks a rule of its format, but has all its pixels, is decoded too.

    Args:
        data: the bytes of the file, if they have been read.
        at_least: the number of pixels that is enough for each side; a larger JPEG is then decoded faster, at a half, a
            quarter or an eighth of its size.

    Raises:
        UnreadableImage: the file is missing, broken, truncated, too large, or not an image.
    """
    try:
        content = path.read_bytes() if data is None else data
        try:
            return _decoded(path, Mended(content), at_least)
        except (OSError, ValueError, SyntaxError):
            better = mended(content)
            if better is None:
                raise
            return _decoded(path, better, at_least)
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # decoders raise SyntaxError, struct.error, ValueError and more
        raise UnreadableImage(path, _reason(path, error)) from error


def _decoded(path: Path, file: Mended, at_least: int | None) -> Decoded:
    with Image.open(io.BytesIO(file.data)) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise UnreadableImage(path, f"it is {width} x {height} pixels, too large to load; scale it down")
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        image.load()
        size = (height, width) if _orientation(image) in SIDEWAYS else (width, height)
        upright, note = _to_8_bit(_upright(image))
        profile = file.profile or image.info.get("icc_profile")
        alpha = None
        if upright.has_transparency_data:
            alpha = upright.convert("RGBA").getchannel("A")
            alpha = None if alpha.getextrema()[0] == 255 else alpha
        rgb = _to_srgb(upright, profile)
        if alpha is not None:
            rgb = Image.composite(rgb, Image.new("RGB", rgb.size, BACKGROUND), alpha)
        return Decoded(rgb, size, alpha, "; ".join(filter(None, (file.note, note))))


def open_image(path: Path, *, at_least: int | None = None, data: bytes | None = None) -> Image.Image:
    """Open the first frame of an image as 8-bit RGB, upright, in sRGB, with transparency on white.

    Args:
        at_least: the number of pixels that is enough for each side, as in `decoded`.
        data: the bytes of the file, if they have been read.

    Raises:
        UnreadableImage: the file is missing, broken, truncated, too large, or not an image.
    """
    return decoded(path, data, at_least=at_least).image


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
    whole: tuple[int, int] | None = None,
) -> Tensor:
    """Load a mask, scaled and cropped as `load_pixels` does with its image.

    Args:
        size: the width and height in pixels.
        whole: the width and height of the image, to which the mask is stretched first; None for a mask of its shape.
        crop: the fractions of what is cropped off that are taken from the left and from the top, 0 to 1.
        mirrored: whether the result is mirrored horizontally.
        from_alpha: whether the mask is the alpha channel of the file instead of its grey values.
        data: the bytes of the file, if they have been read.

    Returns:
        The mask as a float32 tensor of shape (height, width), with values from 0 to 1.

    Raises:
        UnreadableImage: the file cannot be used, as in `open_image`.
    """
    opened = decoded(path, data)
    opaque = Image.new("L", opened.image.size, 255)
    mask = (opened.alpha or opaque) if from_alpha else opened.image.convert("L")
    if whole is not None and mask.size != whole:
        mask = mask.resize(whole, Image.Resampling.BILINEAR)
    mask = fit(mask, size, crop)
    return torch.from_numpy(np.array(ImageOps.mirror(mask) if mirrored else mask, dtype=np.float32) / 255)


def fit(image: Image.Image, size: tuple[int, int], crop: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """Scale an image (Lanczos) to cover `size`, its width and height in pixels, and crop it to that at `crop`."""
    return ImageOps.fit(image, size, method=Image.Resampling.LANCZOS, centering=crop)


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


def _orientation(image: Image.Image) -> int:
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
    turn = turns.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _to_8_bit(image: Image.Image) -> tuple[Image.Image, str]:
    """Scale 16-bit integers (which Pillow would clip at 255) and floats to 8 bits; other images are returned unchanged.

    Floats are from 0 to 1, with highlights above, unless most of them are far above 1.

    Returns:
        The image, and what had to be decided, as a phrase, or "".
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return image, ""
    values, note = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=np.finfo(np.float32).max), ""
    if image.mode == "F":
        high = float(np.quantile(values, BRIGHT)) if values.size else 0.0
        top = next((top for top in FLOAT_TOPS if high <= HIGHLIGHTS * top), FLOAT_TOPS[-1])
        if top > 1:
            note = f"its numbers reach {values.max():.4g} and were read as 0 to {top}, which is a guess"
        values = values * (255 / top)
    elif image.mode != "I" or values.max(initial=0) > 255:
        values = values / 257
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)), note


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert the colours of an image without its transparency to sRGB; a profile of no use is ignored."""
    mode = {"LA": "L", "La": "L", "RGBA": "RGB", "RGBa": "RGB"}.get(image.mode, image.mode)
    if mode not in ("L", "RGB", "CMYK"):
        mode = "RGB"
    colours = image.convert(mode)
    if not profile:
        return colours.convert("RGB")
    try:
        transform = _transform(profile, mode)
        converted = None if transform is None else ImageCms.applyTransform(colours, transform)
    except (ImageCms.PyCMSError, OSError, ValueError):
        converted = None
    return colours.convert("RGB") if converted is None else converted


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion from a profile to sRGB; None if it changes next to nothing, whatever the profile's name."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return transform
    samples = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), axis=-1).reshape(1, -1, 3)
    probe = Image.fromarray(samples).convert(mode)
    after = np.asarray(ImageCms.applyTransform(probe, transform), dtype=np.int16)
    same = np.abs(after - np.asarray(probe.convert("RGB"))).max() <= UNNOTICED
    return None if same else transform
