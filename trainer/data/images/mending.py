"""Image files that break a rule of their format: those that have every pixel can be used, the others lack pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .completion import Mended, MissingPixels, missing_rows, opened
from .mend_jpeg import JPEG, mended_jpeg
from .mend_png import PNG, mended_png
from .mend_webp import is_webp, mended_webp

IN_ORDER = frozenset({"BMP", "DIB", "TGA", "PPM", "GIF", "TIFF", "PCX", "SGI", "SUN", "MSP", "PSD", "DDS", "QOI"})
"""Pillow's names of formats whose pixels follow each other, so that a file that was cut off lacks the last ones."""

JUNK = b"\r\n\t \0"
"""Bytes that programs put in front of an image by mistake, after a byte order mark or without one."""

GREY = 128
"""The value of all channels with which a JPEG decoder fills in what is missing."""

_MANY_ZEROS = bytes(64)


def mended(data: bytes) -> Mended | None:
    """Return a file in a form that can be decoded, or None if nothing is known that would help.

    Raises:
        MissingPixels: the file was cut off, and pixels are missing.
    """
    bare = data.removeprefix(b"\xef\xbb\xbf").lstrip(JUNK)
    if bare.startswith(PNG):
        return mended_png(bare)
    if bare.startswith(JPEG):
        return mended_jpeg(bare)
    if is_webp(data):
        return mended_webp(data)
    if _lacks_directory(data):
        raise MissingPixels
    with opened(data) as image:
        if image.format not in IN_ORDER:
            return None
        count = 8 * image.width * image.height + 2**16
    missing = missing_rows(data, data, count)
    if missing is None:
        return None
    if missing.any():
        raise MissingPixels(float(missing.mean()))
    return Mended(data + bytes(count), "end_missing")


def _lacks_directory(data: bytes) -> bool:
    """Return whether a TIFF ends before the list of what is in it."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(data[:4])
    return order is not None and int.from_bytes(data[4:8], order) >= len(data)  # type: ignore[arg-type]


def seems_cut_off(data: bytes, image: Image.Image) -> bool:
    """Return whether a decoded file looks as if pixels were missing, which decoders do not say of every file.

    Args:
        data: the bytes of the file.
        image: the image as it was decoded, before any conversion.
    """
    if image.format in ("JPEG", "MPO"):
        end = data.rstrip(b"\0")
        if data.endswith(_MANY_ZEROS) and not end.endswith(b"\xff\xd9"):
            return True
        corner = image.crop((max(0, image.width - 2), max(0, image.height - 2), *image.size))
        return image.mode in ("L", "RGB") and bool((np.asarray(corner) == GREY).all())
    if image.format == "PNG":
        last = np.asarray(image.crop((0, max(0, image.height - 2), *image.size)))
        return not last.reshape(len(last), -1).any(axis=1).all()
    return False
