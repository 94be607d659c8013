"""Loading image files of every kind as plain RGB."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageChops, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from ...errors import CrucibleError
from .colours import profile_of, to_srgb
from .completion import Mended, MissingPixels, opened
from .foreign_files import HEAD, what_instead
from .mending import mended, seems_cut_off
from .ranges import Numbers, to_8_bit

MOST_PIXELS = 178_956_970
"""The largest image that is accepted. This is Pillow's own limit, which other code in the process may have lifted."""

BACKGROUND = (255, 255, 255)
"""The colour that shows through transparent pixels."""

ORIENTATION_TAG = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


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
        notes: the names of what is worth telling about the file, of `NOTES`.
    """

    image: Image.Image
    size: tuple[int, int]
    alpha: Image.Image | None
    notes: tuple[str, ...]


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
        except (UnreadableImage, Image.DecompressionBombError):
            raise
        except Exception:  # decoders raise SyntaxError, struct.error, ValueError and more
            better = mended(content)
            if better is None:
                raise
            return _decoded(path, better, at_least)
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:
        raise UnreadableImage(path, _reason(path, error)) from error


def _decoded(path: Path, file: Mended, at_least: int | None) -> Decoded:
    with opened(file.data) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise UnreadableImage(path, f"it is {width} x {height} pixels, too large to load; scale it down")
        return _converted(image, file, at_least)


def _converted(image: ImageFile.ImageFile, file: Mended, at_least: int | None) -> Decoded:
    width, height = image.size
    if at_least is not None:
        image.draft(None, (at_least, at_least))
    numbers = Numbers.of(image)
    image.load()
    if seems_cut_off(file.data, image):
        mended(file.data)
    turned = _orientation(image)
    profile, about_colours = profile_of(image, file.data)
    alpha = _alpha(image)
    levels, about_range = to_8_bit(image, numbers)
    rgb, about_profile = to_srgb(levels, file.profile or profile)
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, BACKGROUND), alpha)
        alpha = _upright(alpha, turned)
    size = (height, width) if turned in SIDEWAYS else (width, height)
    notes = dict.fromkeys(filter(None, (file.note, about_colours, about_range, about_profile)))
    return Decoded(_upright(rgb, turned), size, alpha, tuple(notes))


def _alpha(image: Image.Image) -> Image.Image | None:
    """Return the opacity of each pixel of a decoded image, or None if all are opaque."""
    if not image.has_transparency_data:
        return None
    clear = image.info.get("transparency")
    if image.mode.startswith("I") and isinstance(clear, int):
        alpha = Image.fromarray(np.where(np.asarray(image) == clear, 0, 255).astype(np.uint8))
    elif image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:  # of 16 bits, of which 8 were decoded
        bands = zip(image.split(), clear, strict=True)
        other = [band.point([value != colour >> 8 for value in range(256)], "1") for band, colour in bands]
        alpha = ImageChops.logical_or(ImageChops.logical_or(other[0], other[1]), other[2]).convert("L")
    else:
        alpha = image.convert("RGBA").getchannel("A")
    return None if alpha.getextrema()[0] == 255 else alpha


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
            head = file.read(HEAD).lower()
    except OSError as problem:
        return f"the file cannot be opened ({problem.strerror or problem})"
    if not head:
        return "the file is empty"
    if isinstance(error, MissingPixels):
        return f"the file is incomplete; {error}"
    unknown = isinstance(error, UnidentifiedImageError)
    foreign = what_instead(head, of_no_known_format=unknown)
    if foreign:
        return f"it is {foreign}"
    if unknown:
        return "it is not an image, or its format is not supported"
    return f"the file is damaged or incomplete ({error})"


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, which is 1 if it is upright."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a broken EXIF block does not make the image unreadable
        return 1


def _upright(image: Image.Image, turned: int) -> Image.Image:
    """Turn an image with an EXIF orientation, like `ImageOps.exif_transpose`, which fails on broken EXIF blocks."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = turns.get(turned)
    return image if turn is None else image.transpose(turn)
