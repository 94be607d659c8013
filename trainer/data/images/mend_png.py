"""PNG files that Pillow refuses although every pixel is there."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from .completion import Mended, MissingPixels

PNG = b"\x89PNG\r\n\x1a\n"

_SIZES = {b"gAMA": 4, b"sRGB": 1, b"cHRM": 32, b"cICP": 4}
"""The chunks about colours, with their sizes in bytes."""

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""The numbers of samples of a pixel, by colour type."""

_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The first column and row and the steps of both in the seven passes of an interlaced image."""

MOST_PROFILE_BYTES = 2**24
"""The largest colour profile that is read."""

_MOST_EXTRA = 2**16
"""How many bytes an image's stream is followed beyond its last pixel, to see whether its checksum is right."""


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield the kind and the content of each chunk of a PNG, and whether its checksum is right; the last may be cut."""
    place = len(PNG)
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        checksum = data[place + 8 + length : place + 12 + length]
        yield kind, content, checksum == zlib.crc32(kind + content).to_bytes(4, "big")
        if kind == b"IEND":
            return
        place += 12 + length


def mended_png(data: bytes) -> Mended | None:
    """Return a PNG with its pixels and colours alone, without texts and chunks that are damaged.

    The pixels have two checksums: one in each chunk, and one at the end of their stream. One that is wrong alone is an
    error of the program that wrote it; where both are wrong, the pixels are damaged.

    Returns:
        The file, or None if its pixels are damaged or its form is not known.

    Raises:
        MissingPixels: there are fewer pixels than its header says.
    """
    header, note, profile, chunks_right = b"", "", None, True
    kept: list[tuple[bytes, bytes]] = []
    compressed = []
    for kind, content, right in chunks(data):
        if kind == b"CgBI":  # Apple's own form
            return None
        if kind == b"IHDR" and len(content) == 13:
            header, note = content, "" if right else "checksum"
        elif kind == b"IDAT":
            compressed.append(content)
            chunks_right = chunks_right and right
        elif kind == b"PLTE":
            kept.append((kind, content))
            note = note if right else "checksum"
        elif kind == b"iCCP" and right:
            profile = _profile(content)
        elif right and (kind in (b"tRNS", b"eXIf") or len(content) == _SIZES.get(kind)):
            kept.append((kind, content))
    wanted = _bytes(header) if header else 0
    if not wanted:
        return None
    try:
        pixels, stream_right = _inflated(b"".join(compressed), wanted)
    except zlib.error:
        return None
    if len(pixels) < wanted:
        raise MissingPixels(1 - len(pixels) / wanted)
    if not stream_right:
        if not chunks_right:
            return None
        compressed, note = [zlib.compress(pixels, 1)], "checksum"
    parts = [(b"IHDR", header), *kept, (b"IDAT", b"".join(compressed)), (b"IEND", b"")]
    return Mended(PNG + b"".join(_chunk(*part) for part in parts), note, profile)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _profile(content: bytes) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(content.partition(b"\0")[2][1:], MOST_PROFILE_BYTES)
    except zlib.error:
        return None


def _bytes(header: bytes) -> int:
    """Return the number of bytes of all rows of an image, which start with a byte each that names a filter."""
    width, height, depth, kind, _, _, interlaced = struct.unpack(">2I5B", header)
    bits = depth * _SAMPLES.get(kind, 0)
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // right), -(-(height - y) // down)) for x, y, right, down in passes]
    return sum((1 + -(-columns * bits // 8)) * rows for columns, rows in sizes if columns > 0 and rows > 0 and bits)


def _inflated(compressed: bytes, wanted: int) -> tuple[bytes, bool]:
    """Decompress up to a wanted number of bytes; return them, and whether the stream ends with their checksum.

    Raises:
        zlib.error: the stream is damaged.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)  # without the header, so that the checksum is left to be compared
    found = stream.decompress(compressed[2:], wanted + _MOST_EXTRA)
    checksum = zlib.adler32(found).to_bytes(4, "big")
    return found[:wanted], stream.eof and stream.unused_data[:4] == checksum
