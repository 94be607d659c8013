"""Colour profiles for files that name their colours without a profile."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Point = tuple[float, float]

D65: Point = (0.3127, 0.329)
D50 = np.array([0.9642, 1.0, 0.8249])
"""The white of all profiles, as X, Y and Z."""

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

_CURVE_POINTS = 4096

PAPER_WHITE = 203.0
"""The brightness in candela per square metre that HDR images have for white, after ITU-R BT.2408."""


class Primaries(NamedTuple):
    """The chromaticities of the red, green and blue light that colours are mixed of, and of their white."""

    red: Point
    green: Point
    blue: Point
    white: Point = D65


SRGB = Primaries((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
ADOBE_RGB = Primaries((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
DISPLAY_P3 = Primaries((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
REC_2020 = Primaries((0.708, 0.292), (0.17, 0.797), (0.131, 0.046))
DCI_P3 = Primaries((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.314, 0.351))

Curve = Callable[[Floats], Floats]
"""A function from stored values (0 to 1) to light (0 to 1)."""


def srgb_curve(values: Floats) -> Floats:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def pq_curve(values: Floats) -> Floats:
    """The curve of HDR images after SMPTE ST 2084, cut off at the white of paper."""
    root = values ** (1 / 78.84375)
    light = (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    return np.minimum(light * 10_000 / PAPER_WHITE, 1)


def hlg_curve(values: Floats) -> Floats:
    """The curve of HDR images after ARIB STD-B67, cut off at the white of paper, which is stored as 0.75."""

    def light(stored: Floats) -> Floats:
        scene = np.where(stored <= 0.5, stored**2 / 3, (np.exp((stored - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        return scene**1.2

    return np.minimum(light(values) / light(np.array(0.75)), 1)


def power_curve(exponent: float) -> Curve:
    return lambda values: values**exponent


@lru_cache(maxsize=16)
def matrix_profile(primaries: Primaries, curve: Curve) -> bytes:
    """Return an ICC profile (version 2) for RGB images with these primaries and this curve."""
    light = np.clip(curve(np.linspace(0, 1, _CURVE_POINTS)), 0, 1)
    points = np.rint(light * 65535).astype(">u2").tobytes()
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"c\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"-\0",
    }
    tags[b"wtpt"] = _xyz(D50)
    for letter, column in zip(b"rgb", _to_d50(primaries).T, strict=True):
        tags[bytes([letter]) + b"XYZ"] = _xyz(column)
        tags[bytes([letter]) + b"TRC"] = b"curv" + bytes(4) + struct.pack(">I", _CURVE_POINTS) + points
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4xI4s4s4s", start + len(body), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(D50)[8:]
    return head.ljust(128, b"\0") + table + body


def _to_d50(primaries: Primaries) -> Floats:
    """Return the X, Y and Z of each primary as columns, adapted from its own white to that of profiles (Bradford)."""
    lights = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries[:3]]).T
    x, y = primaries.white
    white = np.array([x / y, 1, (1 - x - y) / y])
    lights = lights * np.linalg.solve(lights, white)
    scale = (_BRADFORD @ D50) / (_BRADFORD @ white)
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD @ lights)


def _xyz(values: Floats) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(float(value) * 65536) for value in values))
