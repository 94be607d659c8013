"""What files are that have an image's name, but are something else."""

from __future__ import annotations

HEAD = 64
"""How many of its first bytes tell what a file is."""

_MARKS = (
    (b"ftypheic", "a HEIC photo; export it as JPEG or PNG"),
    (b"ftypheix", "a HEIC photo; export it as JPEG or PNG"),
    (b"ftypmif1", "a HEIF photo; export it as JPEG or PNG"),
    (b"ftypcrx", "a raw photo; develop it and export it as JPEG or PNG"),
    (b"ftypisom", "a video; export its frames as PNG"),
    (b"ftypmp4", "a video; export its frames as PNG"),
    (b"ftypqt", "a video; export its frames as PNG"),
    (b"cgbi", "a PNG in a form for iPhone apps only; convert it to an ordinary PNG"),
    (b"<!doctype html", "a web page, not an image; download the image itself"),
    (b"<html", "a web page, not an image; download the image itself"),
    (b"<svg", "a vector drawing (SVG); export it as PNG"),
    (b"<?xml", "an XML file, perhaps a vector drawing; export it as PNG"),
    (b"git-lfs.github.com", "a Git LFS pointer, not the image; run git lfs pull"),
)
"""Marks, in lower case, within the head of files with an image's extension that are something else."""

_TIFF_STARTS = (b"ii*\0", b"mm\0*")

_STARTS = (
    (b"\x76\x2f\x31\x01", "an OpenEXR (HDR) image; export it as 16-bit PNG"),
    (b"#?ra", "a Radiance (HDR) image; export it as 16-bit PNG"),
    (b"\xff\x0a", "a JPEG XL image; export it as PNG"),
    (b"\0\0\0\x0cjxl ", "a JPEG XL image; export it as PNG"),
    (b"8bps", "a Photoshop file without a flattened image; export it as PNG"),
    (b"gimp xcf", "a GIMP file; export it as PNG"),
    (b"%pdf", "a PDF; export its pages as PNG"),
    (b"%!ps", "a PostScript drawing; export it as PNG"),
    (b"pk\x03\x04", "a ZIP archive; unpack it"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"rar!", "a RAR archive; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"\x1ae\xdf\xa3", "a video; export its frames as PNG"),
    (b"{", "a JSON file, not an image; download the image itself"),
    (b"\0" * 64, "empty but for zeros, as after a broken download or copy; fetch it again"),
    *(
        (start, "a TIFF of a kind that is not read, such as colors as floats; save it as a 16-bit PNG")
        for start in _TIFF_STARTS
    ),
)
"""Beginnings, in lower case, of such files."""


def what_instead(head: bytes, *, of_no_known_format: bool) -> str:
    """Return what a file is instead of an image that can be read, and what to do, as a phrase; "" if that is unknown.

    Args:
        head: the first bytes of the file, in lower case.
        of_no_known_format: whether no decoder took it; a damaged TIFF is one all the same.
    """
    marked = (what for mark, what in _MARKS if mark in head)
    started = (
        what for start, what in _STARTS if head.startswith(start) and (of_no_known_format or start not in _TIFF_STARTS)
    )
    return next(marked, "") or next(started, "")
