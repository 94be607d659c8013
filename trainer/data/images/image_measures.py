"""Measures of the pixels of an image that checks are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageStat

HASH_SIDE = 8

SMALL_SIDE, COLOUR_SIDE = 64, 16
"""The side lengths in pixels of the small versions that near-duplicates are compared by: brightness and colour."""

DETAIL_SIDE = 32
"""The side length in pixels of the part of an image that is compared if a small version shows next to nothing."""

DETAIL_SCALE = 512
"""The longest side in pixels of the image that this part is cut from."""

FLAT = 1.5
"""A small version shows next to nothing if the standard deviation of its brightness is below this, out of 255."""

FOCUS_SCALE, TILE, COARSE = 2, 32, 4
"""How many times smaller an image is made to measure its focus, and then the side lengths in pixels of the tiles where
it is measured, and of the squares that are its coarse detail."""

TILES = 3
"""The number of sharpest tiles of which the last counts, so that a speck of dust does not."""

TILES_WITH_DETAIL = 8
"""How many tiles with coarse detail there are for each of these."""

NOISE, NOISE_SHARE = (4.0, 12.0), 0.3
"""The detail that rounding and JPEG compression leave in a blurred image: a share of the variance, within bounds."""

SATURATION_SCALE = 4
"""How many times smaller an image is made to measure its saturation."""

BLANK_RANGE, BLANK_SMALL_RANGE, BLANK_NOISE = 2, 2, (0.8, 2.5)
"""An image is blank if its values differ by no more than the first of these; or if those of its small version differ by
no more than the second, and the rest is noise with a standard deviation in the range of the third."""

COMPRESSED_RANGE, COMPRESSED_SPREAD = 24, 0.4
"""An image is blank, too, if its values differ by no more than the first of these and have a standard deviation of no
more than the second, as those of a single colour do after compression as WebP."""

NOISE_DETAIL = 5.0
"""The Laplacian of noise has at least this many times the noise's variance (20 times if it is independent)."""


@dataclass(frozen=True)
class Detail:
    """How much detail an image has.

    Attributes:
        sharpness: the variance of the Laplacian (Pech-Pacheco et al., 2000), which is low without fine detail.
        focus: the ratio of fine to coarse detail where the image is sharpest; 0.15 and more for sharp edges, whatever
            their contrast, under 0.05 for those that are blurred over several pixels.
        flatness: the fraction of pixels within 1 (of 255) of their right neighbour, 0 to 1; high for drawings.
        contrast: the standard deviation, 0 to 1.
        blank: whether there is nothing to see.
    """

    sharpness: float
    focus: float
    flatness: float
    contrast: float
    blank: bool


def difference_hash(grey: Image.Image) -> int:
    """Compute a 64-bit difference hash: whether each cell of an 8 x 8 grid is darker than its right neighbour.

    See N. Krawetz, 2013.
    """
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), dtype=np.int16)
    bits = (small[:, 1:] > small[:, :-1]).flatten()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def small_version(image: Image.Image) -> bytes:
    """Return the brightness of an RGB image at `SMALL_SIDE` squared, and its two differences of colour at `COLOUR_SIDE`
    squared; and a part of it in full if that shows next to nothing."""
    grey = image.convert("L")
    small = grey.resize((SMALL_SIDE, SMALL_SIDE), Image.Resampling.BILINEAR)
    coloured = image.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BILINEAR, reducing_gap=3).convert("YCbCr")
    parts = [small.tobytes(), *(band.tobytes() for band in coloured.split()[1:])]
    if np.asarray(small).std() < FLAT:
        scale = DETAIL_SCALE / max(image.size)
        half = DETAIL_SIDE / scale / 2
        x, y = image.width / 2, image.height / 2
        box = max(0.0, x - half), max(0.0, y - half), min(image.width, x + half), min(image.height, y + half)
        parts.append(grey.resize((DETAIL_SIDE, DETAIL_SIDE), Image.Resampling.BICUBIC, box).tobytes())
    return b"".join(parts)


def mean_colour(image: Image.Image) -> int:
    """Return the mean colour of an RGB image, with 8 bits each for red, green and blue."""
    return int.from_bytes(image.resize((1, 1), Image.Resampling.BOX, reducing_gap=3).tobytes(), "big")


def mean_saturation(image: Image.Image) -> float:
    """Return the mean HSV saturation of an RGB image, 0 to 1, at a quarter of its size."""
    return float(ImageStat.Stat(image.reduce(SATURATION_SCALE).convert("HSV")).mean[1] / 255)


def detail(image: Image.Image) -> Detail:
    """Measure the detail of an RGB image in whichever has most contrast: its brightness, red, green or blue.

    Focus is measured at half the size, where sharp edges stay sharp and those that compression leaves in a blurred
    image are averaged out; and in the brightness, too, because compression blurs colours.
    """
    small = image.resize((SMALL_SIDE, SMALL_SIDE), Image.Resampling.BOX)
    bands = [small.convert("L"), *small.split()]
    most = int(np.argmax([np.asarray(band).std() for band in bands]))
    bright = image.convert("L")
    band = bright if most == 0 else image.getchannel(most - 1)
    focus = _focus(bright) if most == 0 else max(_focus(bright), _focus(band))
    values = np.asarray(band, dtype=np.float32)
    contrast = float(values.std())
    noise = float(_squared_laplacian(values).mean())
    small_range = max(np.ptp(np.asarray(band)) for band in bands)
    noisy = small_range <= BLANK_SMALL_RANGE and BLANK_NOISE[0] <= contrast <= BLANK_NOISE[1]
    noisy = noisy and noise > NOISE_DETAIL * contrast**2
    return Detail(
        sharpness=round(noise, 3),
        focus=round(focus, 4),
        flatness=_flatness(values),
        contrast=round(contrast / 255, 4),
        blank=bool(noisy or (small_range <= COMPRESSED_RANGE and _of_one_colour(image))),
    )


def _of_one_colour(image: Image.Image) -> bool:
    found = ImageStat.Stat(image)
    most = max(high - low for low, high in found.extrema)
    return most <= BLANK_RANGE or (most <= COMPRESSED_RANGE and max(found.stddev) <= COMPRESSED_SPREAD)


def _squared_laplacian(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the square of the Laplacian of an image, with zeros at its border."""
    found = np.zeros_like(values)
    if min(values.shape) >= 3:
        inner = found[1:-1, 1:-1]
        np.multiply(values[1:-1, 1:-1], -4, out=inner)
        inner += values[:-2, 1:-1]
        inner += values[2:, 1:-1]
        inner += values[1:-1, :-2]
        inner += values[1:-1, 2:]
        inner *= inner
    return found


def _focus(band: Image.Image) -> float:
    values = np.asarray(band.reduce(FOCUS_SCALE), dtype=np.float32)
    height, width = (side // COARSE * COARSE for side in values.shape)
    if min(height, width) < TILE:
        return 1.0  # too small to tell
    coarse = _squared_laplacian(_means(values[:height, :width], COARSE))
    there = _means(coarse, TILE // COARSE).ravel()
    fine = _means(_squared_laplacian(values)[:height, :width], TILE).ravel()
    noise = float(np.clip(NOISE_SHARE * values.var(), *NOISE))
    ratios = np.sort(np.maximum(fine - noise, 0) / (there + noise))[::-1]
    counted = min(TILES, max(1, int((there > noise).sum()) // TILES_WITH_DETAIL))
    return float(ratios[min(counted, len(ratios)) - 1])


def _means(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return the means of squares; what is left over at the right and at the bottom is left out."""
    rows, columns = values.shape[0] // side, values.shape[1] // side
    sums = values[: rows * side, : columns * side].reshape(rows, side, columns * side).sum(axis=1)
    return np.asarray(sums.reshape(rows, columns, side).sum(axis=2) / side**2)


def _flatness(values: NDArray[np.float32]) -> float:
    if values.shape[1] < 2:
        return 1.0
    return round(float((np.abs(np.diff(values, axis=1)) <= 1).mean()), 4)
