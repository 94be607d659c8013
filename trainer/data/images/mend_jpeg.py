"""JPEG files that Pillow refuses although every pixel is there, or reads although some are missing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .completion import Mended, MissingPixels, missing_rows

JPEG = b"\xff\xd8\xff"
END = b"\xff\xd9"

_FILLED = 2**16
"""How many bytes are added to see which pixels a file lacks."""

_COLOURS = (b"JFIF\0", b"Adobe")
"""The beginnings of the facts that say how colours are stored."""

_SCAN, _PROGRESSIVE = 0xDA, 0xC2
_WITHOUT_CONTENT = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})


def mended_jpeg(data: bytes) -> Mended | None:
    """Return a JPEG with an end mark, and without those of its facts that keep it from being opened.

    A decoder fills in pixels that are missing without a word. They are found by what they depend on: where none is
    missing, bytes that are added at the end change nothing.

    Raises:
        MissingPixels: the file was cut off.
    """
    for keeps in ((b"Exif\0\0", b"ICC_PROFILE\0", *_COLOURS), _COLOURS):
        file = _without_facts(data, keeps)
        pixels = file.rstrip(b"\0\r\n")
        if pixels.endswith(b"\xff") and file[len(pixels) : len(pixels) + 1] == b"\0":
            pixels += b"\0"  # the two together stand for a byte of 255
        ended = pixels.endswith(END)
        pixels = pixels.removesuffix(END)
        missing = missing_rows(pixels, pixels + b"\0", _FILLED, end=END)
        if missing is None:
            continue
        if missing.any():
            coarse = any(marker == _PROGRESSIVE for marker, _ in _segments(data))  # which has all pixels, but blurred
            raise MissingPixels(None if coarse else 1 - float(np.argmax(missing)) / len(missing))
        return Mended(pixels + END, "" if ended else "end_missing")
    return None


def _without_facts(data: bytes, keeps: tuple[bytes, ...]) -> bytes:
    """Return a JPEG without comments and the facts of applications, but those that begin with one of `keeps`."""
    kept = [data[:2]]
    for marker, segment in _segments(data):
        applications = 0xE0 <= marker <= 0xEF or marker == 0xFE
        whole = not segment[4:].startswith(_COLOURS) or len(segment) >= 16
        if not applications or (segment[4:].startswith(keeps) and whole):
            kept.append(segment)
    return b"".join(kept)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the bytes of each segment; the last one is everything from the first scan on."""
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF or data[place + 1] == 0xFF:
            place += 1
            continue
        marker = data[place + 1]
        if marker == _SCAN:
            yield marker, data[place:]
            return
        length = 0 if marker in _WITHOUT_CONTENT else int.from_bytes(data[place + 2 : place + 4], "big")
        yield marker, data[place : place + 2 + length]
        place += 2 + length
