"""Image files that break a rule of their format but have every pixel."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFile

PNG = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")

MOST_PROFILE_BYTES = 2**24
"""The largest colour profile that is read."""

END_OF_JPEG = b"\xff\xd9"
_CUT = (32, 128, 512, 2048)
"""How many bytes are cut off a JPEG to see which pixels its last bytes are for."""

_BLOCK = 17
"""The last block of a JPEG has at most 16 x 16 pixels."""


@dataclass(frozen=True)
class Mended:
    """A file that can be decoded.

    Attributes:
        data: the bytes of the file.
        note: what was wrong with it, as a phrase, or "" if that is of no importance.
        profile: the colour profile that was taken out of it, or None.
    """

    data: bytes
    note: str = ""
    profile: bytes | None = None


def mended(data: bytes) -> Mended | None:
    """Return a file without what keeps it from being decoded, or None if pixels are missing or nothing is known."""
    if data.startswith(PNG):
        return _without_texts(data)
    if data.startswith(b"\xff\xd8") and END_OF_JPEG not in data[-64:] and _has_last_block(data):
        return Mended(data + END_OF_JPEG, "its end mark is missing, and at most a corner of 16 x 16 pixels with it")
    return None


def _without_texts(data: bytes) -> Mended | None:
    """Take texts and the colour profile out of a PNG, because Pillow refuses those of more than a megabyte."""
    kept, profile, taken = [PNG], None, False
    for kind, content, whole in _chunks(data):
        if kind in _TEXTS:
            taken = True
        elif kind == b"iCCP":
            taken = True
            compressed = content.partition(b"\0")[2][1:]
            try:
                profile = zlib.decompressobj().decompress(compressed, MOST_PROFILE_BYTES)
            except zlib.error:
                continue
        else:
            kept.append(whole)
    return Mended(b"".join(kept), profile=profile) if taken else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield the kind, the content and the whole of each chunk of a PNG."""
    place = len(PNG)
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        yield data[place + 4 : place + 8], data[place + 8 : end - 4], data[place:end]
        place = end


def _has_last_block(data: bytes) -> bool:
    """Return whether a JPEG without its end mark reaches its last block of pixels.

    A decoder fills missing blocks with a single colour. In a progressive JPEG, which has coarse versions of all blocks
    first, the last bytes refine the last block.
    """
    whole = _decoded(data)
    if whole is None:
        return False
    right, bottom = whole.width - _BLOCK, whole.height - _BLOCK
    if "progressive" not in whole.info:
        corner = whole.crop((max(0, (whole.width - 1) // 8 * 8), max(0, (whole.height - 1) // 8 * 8), *whole.size))
        return bool(np.ptp(np.asarray(corner.convert("RGB")), axis=(0, 1)).any())
    for cut in _CUT:
        shorter = _decoded(data[:-cut])
        box = None if shorter is None else ImageChops.difference(whole.convert("RGB"), shorter.convert("RGB")).getbbox()
        if box is not None:
            return box[2] > right and box[3] > bottom
    return False


def _decoded(data: bytes) -> ImageFile.ImageFile | None:
    try:
        with Image.open(io.BytesIO(data + END_OF_JPEG)) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError):
        return None
