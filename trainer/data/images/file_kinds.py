"""What a file in a dataset folder is, by its name or its first bytes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path, PurePath

from PIL import Image

CAPTION_EXTENSIONS = (".txt", ".caption")
BINARY_TABLES = (".parquet", ".arrow")
TABLE_EXTENSIONS = (".csv", ".tsv", ".jsonl", ".json", ".xlsx", *BINARY_TABLES)

NO_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow recognizes but does not decode, or not everywhere."""

RAW_PHOTO, DRAWING, EDITED, HDR = "a raw photo", "a vector drawing", "a file of a paint program", "an HDR image"
# fmt: off
UNREAD_IMAGES = {
    ".jxl": "JPEG XL", ".heic": "a HEIC photo", ".heif": "a HEIF photo", ".hif": "a HEIF photo",
    ".avif": "an AVIF image", ".svg": DRAWING, ".svgz": DRAWING, ".ai": DRAWING, ".cdr": DRAWING, ".eps": DRAWING,
    ".ps": DRAWING, ".wmf": DRAWING, ".emf": DRAWING, ".pdf": "a PDF", ".exr": HDR, ".hdr": HDR, ".xcf": EDITED,
    ".kra": EDITED, ".clip": EDITED, ".psb": EDITED, ".ora": EDITED, ".sai": EDITED, ".sai2": EDITED, ".mdp": EDITED,
    ".procreate": EDITED, ".afphoto": EDITED, ".pdn": EDITED, ".3fr": RAW_PHOTO, ".arw": RAW_PHOTO, ".cr2": RAW_PHOTO,
    ".cr3": RAW_PHOTO, ".crw": RAW_PHOTO, ".dng": RAW_PHOTO, ".erf": RAW_PHOTO, ".iiq": RAW_PHOTO, ".kdc": RAW_PHOTO,
    ".mrw": RAW_PHOTO, ".nef": RAW_PHOTO, ".nrw": RAW_PHOTO, ".orf": RAW_PHOTO, ".pef": RAW_PHOTO, ".raf": RAW_PHOTO,
    ".raw": RAW_PHOTO, ".rw2": RAW_PHOTO, ".srw": RAW_PHOTO, ".x3f": RAW_PHOTO,
}
"""Endings of images that Pillow does not read (AVIF only in old versions, HEIC unless a plugin does), with what they
are."""

ARCHIVES = frozenset({".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".cbz"})
VIDEOS = frozenset({
    ".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".mts", ".m2ts", ".3gp", ".ogv",
})
SHORTCUTS = frozenset({".lnk", ".url", ".webloc", ".desktop"})
UNFINISHED = frozenset({".part", ".partial", ".crdownload", ".download", ".opdownload", ".!ut", ".aria2"})
"""Endings of downloads that have not been completed."""

SILENT = frozenset({
    ".md", ".rst", ".log", ".toml", ".yaml", ".yml", ".ini", ".cfg", ".npz", ".npy", ".cache", ".bak", ".db", ".xmp",
    ".pp3", ".aae", ".thm", ".html", ".htm", ".py", ".sh", ".bat",
})
"""Endings of files that nobody expects to be trained: notes, settings, caches of other trainers, and what photo
programs keep beside images."""
# fmt: on

STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"8BPS", b"\0\0\0\x0cjP  ", b"qoif")
"""The first bytes of images whose files may have any ending."""


@lru_cache(maxsize=1)
def image_extensions() -> frozenset[str]:
    """Return the endings, in lower case, of all images that Pillow decodes here, plugins of other packages included."""
    registered = Image.registered_extensions()
    return frozenset(
        extension for extension, form in registered.items() if form in Image.OPEN and form not in NO_PICTURES
    )


def extension_of(path: PurePath) -> str:
    """Return the ending of a file's name in lower case, without spaces after it."""
    return path.suffix.lower().rstrip()


def has_image_name(path: PurePath) -> bool:
    """Return whether a file is called as images are."""
    return extension_of(path) in image_extensions()


def is_image(path: Path) -> bool:
    """Return whether Pillow reads a file, by its ending, or by its first bytes if the ending says nothing."""
    return has_image_name(path) or (not _says_what_it_is(path) and _starts_as_image(_start(path)))


def unread_image(path: Path) -> str:
    """Return what an image is that cannot be read, such as "a raw photo", or "" for any other file."""
    extension = extension_of(path)
    if extension in image_extensions():
        return ""
    if extension in UNREAD_IMAGES:
        return UNREAD_IMAGES[extension]
    if _says_what_it_is(path):
        return ""
    start = _start(path)
    if start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "JPEG XL"
    return "a HEIC photo" if start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1") else ""


def _says_what_it_is(path: Path) -> bool:
    extension = extension_of(path)
    known = (*CAPTION_EXTENSIONS, *TABLE_EXTENSIONS, ".mask", ".safetensors", ".ckpt", ".pt", ".pth", ".gguf")
    other = (UNREAD_IMAGES, ARCHIVES, VIDEOS, SHORTCUTS, UNFINISHED, SILENT)
    return extension in known or any(extension in endings for endings in other)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError:
        return b""


def _starts_as_image(start: bytes) -> bool:
    in_container = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    bitmap = start[:2] == b"BM" and start[6:10] == bytes(4)
    avif = start[4:12] in (b"ftypavif", b"ftypavis") and ".avif" in image_extensions()
    return start.startswith(STARTS) or in_container or bitmap or avif
