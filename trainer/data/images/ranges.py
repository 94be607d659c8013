"""Bringing the numbers of an image to 8 bits, by what the file says is black and white."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

FLOAT_WHITES = (1, 255, 65535)
"""The numbers that stand for white in float images that do not say which does."""

INTEGER_WHITES = (255, 65535, 2**31 - 1, 2**32 - 1)
"""The numbers that stand for white in 32-bit images that do not say which does."""

BRIGHT, HIGHLIGHTS = 0.9, 4.0
"""Float images are taken for those with the least white that this share of their positive numbers exceeds at most so
many times."""

HARDLY_USED = 8
"""A 16-bit image is nearly black if its largest number is below this fraction of white."""

_BITS, _MEANING, _LEAST, _MOST, _FORMAT, _LEAST_ANY, _MOST_ANY = 258, 262, 280, 281, 339, 340, 341
"""Tags of TIFF: bits per sample, photometric interpretation, the least and the largest integer, the sample format, and
the least and the largest sample of any format."""

_SIGNED = 2


@dataclass(frozen=True)
class Numbers:
    """What a file says about its numbers.

    Attributes:
        bits: the bits of a sample; 0 if the file does not say.
        signed: whether numbers may be negative.
        inverted: whether small numbers are white, and the decoder leaves them so.
        black: the number that stands for black, or None.
        white: the number that stands for white, or None.
    """

    bits: int = 0
    signed: bool = False
    inverted: bool = False
    black: float | None = None
    white: float | None = None

    @classmethod
    def of(cls, image: Image.Image) -> Numbers:
        """Return what an opened image says about its numbers."""
        tags: Mapping[int, Any] = getattr(image, "tag_v2", None) or {}
        bits = int(_number(tags.get(_BITS)) or (16 if image.mode.startswith("I;16") else 0))
        high = image.mode == "F" or image.mode.startswith("I")
        if image.mode == "F":
            black, white = _number(tags.get(_LEAST_ANY)), _number(tags.get(_MOST_ANY))
        else:
            black, white = _number(tags.get(_LEAST)), _number(tags.get(_MOST))
        if white is None or white <= (black or 0):
            black = white = None
        return cls(bits, _number(tags.get(_FORMAT)) == _SIGNED, high and tags.get(_MEANING) == 0, black, white)


def _number(value: Any) -> float | None:
    """Return the number of a tag, or of the first sample if there is one for each."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def to_8_bit(image: Image.Image, numbers: Numbers) -> tuple[Image.Image, str]:
    """Scale integers of more than 8 bits (which Pillow would clip at 255), signed ones, and floats to 8 bits.

    Args:
        image: a decoded image; others than these are returned unchanged.
        numbers: what its file says about its numbers.

    Returns:
        The image; and the name of what is worth telling, one of `NOTES`, or "".
    """
    signed_bytes = image.mode == "L" and numbers.signed
    if image.mode != "F" and not image.mode.startswith("I") and not signed_bytes:
        return image, ""
    values = np.asarray(image)
    if signed_bytes:
        values = values.view(np.int8)
    elif numbers.signed and numbers.bits == 16 and values.dtype == np.uint16:
        values = values.view(np.int16)
    elif not numbers.signed and numbers.bits == 32 and values.dtype == np.int32:
        values = values.view(np.uint32)
    values = np.nan_to_num(values.astype(np.float64), posinf=float(2**63), neginf=0)
    white, note = (numbers.white, "") if numbers.white is not None else _white(image.mode, values, numbers)
    black = numbers.black or 0.0
    levels = np.clip((values - black) * (255 / (white - black)), 0, 255)
    return Image.fromarray(np.rint(255 - levels if numbers.inverted else levels).astype(np.uint8)), note


def _white(mode: str, values: np.ndarray[Any, Any], numbers: Numbers) -> tuple[float, str]:
    """Return the number that stands for white in a file that does not name it, and what is worth telling."""
    most = float(values.max(initial=0))
    if mode == "F":
        positive = values[values > 0]
        high = float(np.quantile(positive, BRIGHT)) if positive.size else 0.0
        guess = next((white for white in FLOAT_WHITES if high <= HIGHLIGHTS * white), FLOAT_WHITES[-1])
        return float(guess), "" if guess == 1 else f"white_{guess}"
    if mode == "L":
        return 127.0, ""
    if mode.startswith("I;16") or numbers.bits == 16:
        white = 32767.0 if numbers.signed else 65535.0
        return white, "nearly_black" if 255 < most < white / HARDLY_USED else ""
    if numbers.bits == 0:  # not a TIFF: Pillow has scaled it to 16 bits
        return 65535.0, ""
    guess = next(white for white in INTEGER_WHITES if most <= white)
    return float(guess), f"white_{guess}" if guess < 2 ** (numbers.bits - 1) - 1 else ""
