"""Telling whether a file that was cut off lacks pixels: they depend on what follows where the file ends."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from .file_kinds import NO_PICTURES


@dataclass(frozen=True)
class Mended:
    """A file that can be decoded.

    Attributes:
        data: the bytes of the file.
        note: the name of what is worth telling about the file, one of `NOTES`, or "".
        profile: the colour profile that was taken out of it, or None.
    """

    data: bytes
    note: str = ""
    profile: bytes | None = None


class MissingPixels(Exception):
    """The error raised for a file that was cut off; `share` is how much of the pixels is missing, 0 to 1, or None."""

    def __init__(self, share: float | None = None) -> None:
        much = "a part of its pixels is"
        if share is not None:
            much = f"about {share:.0%} of its pixels are" if share >= 0.01 else "less than 1% of its pixels are"
        super().__init__(f"{much} missing, as after a download or a copy that stopped early")


def missing_rows(one: bytes, other: bytes, count: int, *, end: bytes = b"") -> NDArray[np.bool_] | None:
    """Complete a file in two ways, with zeros and with other bytes, and compare the pixels.

    Args:
        one: the file to complete with nothing but `end`, or with zeros if that is empty.
        other: the same file, perhaps with bytes that separate it from those added.
        count: the number of bytes to add.
        end: the end mark of the format.

    Returns:
        Whether each row of the image differs; None if one of the two cannot be decoded.
    """
    filler = np.random.default_rng(0).integers(1, 255, count, dtype=np.uint8).tobytes()
    first = _pixels(one + (end or bytes(count)))
    second = _pixels(other + filler + end)
    if first is None or second is None or first.shape != second.shape:
        return None
    return np.asarray((first != second).reshape(len(first), -1).any(axis=1))


def _pixels(data: bytes) -> NDArray[np.uint8] | None:
    try:
        with opened(data) as image:
            image.load()
            return np.asarray(image)
    except Exception:  # decoders raise SyntaxError, struct.error, ValueError and more
        return None


def opened(data: bytes) -> ImageFile.ImageFile:
    """Return the image in the bytes of a file, whose pixels are not decoded yet.

    Raises:
        UnidentifiedImageError: it is no image, or of no format that Pillow reads by itself.
        DecompressionBombError: it has more pixels than Pillow accepts.
        Exception: what the format's plugin raises for a damaged file.
    """
    return Image.open(io.BytesIO(data), formats=_formats())


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name not in NO_PICTURES)
