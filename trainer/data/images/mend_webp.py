"""WebP files that libwebp refuses because of what stands around their pixels."""

from __future__ import annotations

from collections.abc import Iterator

from .completion import Mended, MissingPixels

_PIXELS = (b"VP8 ", b"VP8L", b"ANMF")
_KEPT = (b"VP8X", b"ICCP", b"ANIM", b"ALPH", *_PIXELS)
_EXIF_AND_XMP = 0b1100
"""The bits of the header that announce facts about the photo."""


def is_webp(data: bytes) -> bool:
    """Return whether the bytes of a file begin as those of a WebP do."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def mended_webp(data: bytes) -> Mended | None:
    """Return a WebP with its pixels and colours alone, and with the size that it has.

    Raises:
        MissingPixels: the file ends within its first frame.
    """
    kept, found = [], False
    for kind, content, length in _chunks(data):
        cut = len(content) < length
        if cut and kind in _PIXELS and not found:
            raise MissingPixels(1 - len(content) / length)
        if cut or kind not in _KEPT:
            continue
        found = found or kind in _PIXELS
        if kind == b"VP8X" and content:
            content = bytes([content[0] & ~_EXIF_AND_XMP]) + content[1:]
        kept.append(kind + length.to_bytes(4, "little") + content + bytes(length % 2))
    if not found:
        return None
    body = b"WEBP" + b"".join(kept)
    return Mended(b"RIFF" + len(body).to_bytes(4, "little") + body)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield the kind of each chunk, its content, which is short if the file was cut off, and the size it says."""
    place = 12
    while place + 8 <= len(data):
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        yield data[place : place + 4], data[place + 8 : place + 8 + length], length
        place += 8 + length + length % 2
