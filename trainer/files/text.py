"""Reading of text in all encodings that common editors write, and writing of any text."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from ..errors import CrucibleError

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_text(path: Path) -> str:
    """Read a text file in UTF-8 (with or without byte order mark), UTF-16, GBK or Windows-1252.

    Line endings are converted to \\n.

    Raises:
        CrucibleError: the file cannot be opened, or is not text in any of these encodings.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CrucibleError(
            f"{path} cannot be read ({error.strerror or error}). Check that it exists and that you may open it."
        ) from error
    text = _decode(content)
    if text is None:
        raise CrucibleError(
            f"{path} is not a text file in any supported encoding, so its text cannot be read. Open it in a text "
            "editor and save it as UTF-8."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def encoded(text: str) -> bytes:
    """Encode a text as UTF-8, with an escape such as \\udce9 for what UTF-8 lacks.

    Python represents a byte of a file name that is not UTF-8, and half an emoji from a JSON file, as a lone surrogate,
    which UTF-8 lacks. In JSON, the escape is read back as the same character.
    """
    return text.encode("utf-8", "backslashreplace")


def portable(text: str) -> str:
    """Return a text with an escape such as \\udce9 for what UTF-8 lacks, as `encoded` writes it."""
    return encoded(text).decode("utf-8")


def _decode(content: bytes) -> str | None:
    for mark, encoding in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return _try(content[len(mark) :], encoding)
    if b"\0" in content:  # UTF-16 without a mark: in ordinary text every other byte is zero
        return _try(content, "utf-16-be" if content[:1] == b"\0" else "utf-16-le")
    legacy = ("cp1252", "gb18030") if _looks_western(content) else ("gb18030", "cp1252")
    for encoding in ("utf-8", *legacy):
        if (text := _try(content, encoding)) is not None:
            return text
    return None


def _looks_western(content: bytes) -> bool:
    """Return whether bytes beyond ASCII stand alone, like accented letters in words, and not in pairs, as in Chinese.

    Most texts in either encoding are also valid in the other one (GB 18030 is a superset of GBK).
    """
    runs = re.findall(rb"([A-Za-z]?)([\x80-\xff]+)([A-Za-z]?)", content)
    western = [len(run) == 1 or (len(run) == 2 and before and after) for before, run, after in runs]
    return sum(map(bool, western)) * 2 > len(runs)


def _try(content: bytes, encoding: str) -> str | None:
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
