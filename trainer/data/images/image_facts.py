"""What is known of an image file once it has been decoded, kept on disk so that the next start need not decode it.

Decoding every image before the first step is what makes sure that none fails hours later.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image, ImageStat

from ...errors import CrucibleError
from ...files.atomic import write_whole
from .decode import SIDEWAYS, UnreadableImage, orientation, reading

log = logging.getLogger(__name__)

VERSION = 2
"""Of how facts are found. Facts of another version are found anew."""

WORKERS = 4
"""Images that are decoded at a time; each may be large."""

HASH_SIDE = 8
SHARPNESS_SIDE = 512
"""Longest side, in pixels, at which sharpness is measured, so that it means the same for images of every size."""


@dataclass(frozen=True)
class ImageFacts:
    """An image file that was decoded, or the reason why it cannot be.

    Attributes:
        width, height: in pixels, after EXIF rotation; 0 for an image that cannot be read.
        content: SHA-256 of the file.
        look: 64 bits, of which few differ between two images that look alike (difference hash).
        colour: the mean colour, 8 bits each of red, green and blue.
        sharpness: variance of the Laplacian of the grey image, 0 to 255, at a common size.
        saturation: mean of HSV's, 0 to 1.
        contrast: standard deviation of the grey image, 0 to 1.
        flatness: share of the pixels that are nearly as their right neighbour, 0 to 1; large in drawings.
        has_alpha: whether some of its pixels are transparent.
        error: why it cannot be read, or "".
    """

    width: int
    height: int
    content: str
    look: int = 0
    colour: int = 0
    sharpness: float = 0.0
    saturation: float = 0.0
    contrast: float = 0.0
    flatness: float = 0.0
    has_alpha: bool = False
    error: str = ""


def find_facts(path: Path) -> ImageFacts:
    """Reads and decodes an image file; never raises over what is in it."""
    try:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return ImageFacts(0, 0, "", error=f"the file cannot be opened ({error.strerror or error})")
    try:
        with reading(path) as image:
            width, height = image.size
            has_alpha = image.has_transparency_data
            image.draft(None, (SHARPNESS_SIDE, SHARPNESS_SIDE))  # JPEG only: decodes to a smaller size
            image.load()
            sideways = orientation(image) in SIDEWAYS
            small = image.convert("RGB")
    except UnreadableImage as error:
        return ImageFacts(0, 0, content, error=error.reason)
    except (MemoryError, ValueError, OSError) as error:
        return ImageFacts(0, 0, content, error=f"it cannot be decoded here ({error})")
    small.thumbnail((SHARPNESS_SIDE, SHARPNESS_SIDE), Image.Resampling.BILINEAR, reducing_gap=2)
    if sideways:
        width, height = height, width
    grey = small.convert("L")
    return ImageFacts(
        width,
        height,
        content,
        look=difference_hash(grey),
        colour=mean_colour(small),
        sharpness=sharpness(grey),
        saturation=round(ImageStat.Stat(small.convert("HSV")).mean[1] / 255, 4),
        contrast=round(ImageStat.Stat(grey).stddev[0] / 255, 4),
        flatness=flatness(grey),
        has_alpha=has_alpha,
    )


def difference_hash(grey: Image.Image) -> int:
    """64 bits: whether each cell of an 8 x 8 grid is darker than its right neighbour (N. Krawetz, 2013)."""
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), dtype=np.int16)
    bits = (small[:, 1:] > small[:, :-1]).flatten()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def mean_colour(image: Image.Image) -> int:
    """8 bits each of red, green and blue."""
    return int.from_bytes(image.resize((1, 1), Image.Resampling.BOX).tobytes(), "big")


def sharpness(grey: Image.Image) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al., 2000): low where there is no fine detail."""
    pixels = np.asarray(grey, dtype=np.float32)
    if min(pixels.shape) < 3:
        return 0.0
    centre = pixels[1:-1, 1:-1]
    laplacian = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:] - 4 * centre
    return round(float(laplacian.var()), 3)


def flatness(grey: Image.Image) -> float:
    """Share of the pixels that differ from their right neighbour by at most 1 of 255; 1 for a single column."""
    pixels = np.asarray(grey, dtype=np.int16)
    if pixels.shape[1] < 2:
        return 1.0
    return round(float((np.abs(np.diff(pixels, axis=1)) <= 1).mean()), 4)


def all_facts(
    paths: Iterable[Path], index: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> dict[Path, ImageFacts]:
    """The facts of image files; those that have been found before are read, where the file is the same since.

    A file is the same when its path, size, times of writing and of change, and place on the disk are.

    Args:
        index: JSON file that keeps them between starts; several runs may use it at once. None keeps nothing.
        progress: called with (done, total) for images that are decoded; may raise to stop, then what was found is
            kept all the same.
    """
    wanted = list(paths)
    known = {} if index is None else _read_index(index)
    signatures = {path: _signature(path) for path in wanted}
    missing = [path for path in wanted if signatures[path] not in known]
    found = {path: known[signatures[path]] for path in wanted if signatures[path] in known}
    pool = ThreadPoolExecutor(max_workers=min(WORKERS, os.cpu_count() or 1))
    try:
        for done, (path, facts) in enumerate(zip(missing, pool.map(find_facts, missing), strict=True), start=1):
            found[path] = facts
            if progress is not None:
                progress(done, len(missing))
    finally:
        pool.shutdown(cancel_futures=True)
        if index is not None and missing:
            _write_index(index, {signatures[path]: facts for path, facts in found.items() if signatures[path]})
    return {path: found[path] for path in wanted}


def _signature(path: Path) -> str:
    """Changes when the file does, even when its time of writing is set back. Empty for what cannot be looked at."""
    try:
        facts = path.stat()
    except OSError:
        return ""
    return f"{path}|{facts.st_size}|{facts.st_mtime_ns}|{facts.st_ctime_ns}|{facts.st_ino}"


def _read_index(path: Path) -> dict[str, ImageFacts]:
    """What an index holds; nothing where it is missing, damaged, or of another version."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
        if stored["version"] != VERSION:
            return {}
        names = [field.name for field in fields(ImageFacts)]
        return {key: ImageFacts(**dict(zip(names, values, strict=True))) for key, values in stored["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_index(path: Path, found: dict[str, ImageFacts]) -> None:
    """Written beside and renamed: whoever reads at the same time, or after a power cut, finds a whole file."""
    content = {"version": VERSION, "files": {key: list(asdict(facts).values()) for key, facts in found.items()}}
    try:
        write_whole(path, json.dumps(content).encode(), what="What was found of the images")
    except CrucibleError as error:  # it is only looked for again
        log.warning("%s", error)
