"""Facts about decoded image files, kept on disk so that the next start need not decode them again.

Every image is decoded before the first step, so that none fails hours later.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from PIL import Image

from ...errors import CrucibleError
from ...files.atomic import write_whole
from .decode import UnreadableImage, decoded
from .image_measures import detail, difference_hash, mean_colour, mean_saturation, small_version

log = logging.getLogger(__name__)

VERSION = 4
"""The version of the way facts are computed. Facts of another version are computed again."""

WORKERS = 4
"""The number of images that are decoded at a time; each may be large."""

MEASURED_SIDE = 512
"""The longest side in pixels at which images are measured, so that those of different sizes are comparable."""


@dataclass(frozen=True)
class ImageFacts:
    """The facts about a decoded image file, or the reason why it cannot be decoded.

    Attributes:
        width: the width in pixels after EXIF rotation; 0 for an image that cannot be read.
        height: the height in pixels after EXIF rotation; 0 for an image that cannot be read.
        content: the SHA-256 hash of the file.
        look: the difference hash, 64 bits of which only a few differ between images that look alike.
        colour: the mean colour, with 8 bits each for red, green and blue.
        sharpness: the variance of the Laplacian (0 to 255), measured at a common size.
        focus: the ratio of fine to coarse detail where the image is sharpest, as in `Detail`.
        saturation: the mean HSV saturation, 0 to 1.
        contrast: the standard deviation, 0 to 1.
        flatness: the fraction of pixels that are nearly equal to their right neighbour, 0 to 1; high for drawings.
        blank: whether there is nothing to see, as in an image of a single colour.
        small: the small version by which near-duplicates are found, in Base64.
        has_alpha: whether the image has transparent pixels.
        notes: the names of what is worth telling about the file, of `NOTES`.
        error: the reason why the image cannot be read, or an empty string.
    """

    width: int
    height: int
    content: str
    look: int = 0
    colour: int = 0
    sharpness: float = 0.0
    focus: float = 1.0
    saturation: float = 0.0
    contrast: float = 0.0
    flatness: float = 0.0
    blank: bool = False
    small: str = ""
    has_alpha: bool = False
    notes: tuple[str, ...] = ()
    error: str = ""

    def pixels(self) -> bytes:
        """Return the bytes of the small version, as `small_version` makes them; empty if there is none."""
        return base64.b64decode(self.small)


def find_facts(path: Path) -> ImageFacts:
    """Read and decode an image file. Bad content is recorded in `error` and never raised."""
    try:
        data = path.read_bytes()
        content = hashlib.sha256(data).hexdigest()
    except OSError as error:
        return ImageFacts(0, 0, "", error=f"the file cannot be opened ({error.strerror or error})")
    try:
        opened = decoded(path, data, at_least=MEASURED_SIDE)
    except UnreadableImage as error:
        return ImageFacts(0, 0, content, error=error.reason)
    except (MemoryError, ValueError, OSError) as error:
        return ImageFacts(0, 0, content, error=f"it cannot be decoded on this computer ({error})")
    small = opened.image
    small.thumbnail((MEASURED_SIDE, MEASURED_SIDE), Image.Resampling.BILINEAR, reducing_gap=1)
    found = detail(small)
    return ImageFacts(
        *opened.size,
        content,
        look=difference_hash(small.convert("L")),
        colour=mean_colour(small),
        sharpness=found.sharpness,
        focus=found.focus,
        saturation=round(mean_saturation(small), 4),
        contrast=found.contrast,
        flatness=found.flatness,
        blank=found.blank,
        small=base64.b64encode(small_version(small)).decode("ascii"),
        has_alpha=opened.alpha is not None,
        notes=opened.notes,
    )


def all_facts(
    paths: Iterable[Path], index: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> dict[Path, ImageFacts]:
    """Return the facts about image files, decoding only those that are new or have changed.

    A file counts as unchanged if its path, size, modification and change times, and inode are the same.

    Args:
        index: the JSON file that keeps the facts between starts, which several runs may use at once; None keeps none.
        progress: a function called with (done, total) after every decoded image; may raise to stop, in which case
            the facts found so far are still kept.
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
    """Return a text that changes when the file does, even if its modification time is set back.

    It is empty for a file that cannot be accessed.
    """
    try:
        facts = path.stat()
    except OSError:
        return ""
    return f"{path}|{facts.st_size}|{facts.st_mtime_ns}|{facts.st_ctime_ns}|{facts.st_ino}"


def _read_index(path: Path) -> dict[str, ImageFacts]:
    """Read the facts in an index; there are none if it is missing, damaged or of another version."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
        if stored["version"] != VERSION:
            return {}
        names = [field.name for field in fields(ImageFacts)]
        facts = {key: ImageFacts(**dict(zip(names, values, strict=True))) for key, values in stored["files"].items()}
        return {key: replace(one, notes=tuple(one.notes)) for key, one in facts.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_index(path: Path, found: dict[str, ImageFacts]) -> None:
    """Write an index in one piece, so that it is complete for concurrent readers and after a power cut."""
    content = {"version": VERSION, "files": {key: list(asdict(facts).values()) for key, facts in found.items()}}
    try:
        write_whole(path, json.dumps(content).encode(), what="The index of checked images")
    except CrucibleError as error:  # the images are only checked again next time
        log.warning("%s", error)
