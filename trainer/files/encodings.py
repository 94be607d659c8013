"""Guessing the encoding of a text that is not UTF-8."""

from __future__ import annotations

import codecs
import re

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Marks at the beginning of a file that say its encoding. That of UTF-32 begins with that of UTF-16."""

NAMES = {
    "cp1252": "Western European (Windows-1252)",
    "cp1251": "Cyrillic (Windows-1251)",
    "gb18030": "simplified Chinese (GB 18030)",
    "big5": "traditional Chinese (Big5)",
    "cp932": "Japanese (Shift-JIS)",
    "cp949": "Korean (EUC-KR)",
}

_COMMON_GB = re.compile(rb"[\xb0-\xd7][\xa1-\xfe]|[\xa1-\xa3][\xa1-\xfe]")
_COMMON_BIG5 = re.compile(rb"[\xa4-\xc6][\x40-\x7e\xa1-\xfe]|[\xa1-\xa3][\x40-\x7e\xa1-\xfe]")
_HANGUL = re.compile(rb"(?:[\xb0-\xc8][\xa1-\xfe])+")
_KANA = re.compile("[\u3040-\u30ff]")
_RUSSIAN_WORD = re.compile("[\u0410-\u042f\u0401]?[\u0430-\u044f\u0451]+|[\u0410-\u042f\u0401]+")

_PUNCTUATION = "\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u00ab\u00bb\u00bf\u00a1\u00b0"
"""The signs beyond letters that are common in Western texts."""

MANY_HANGUL = 8
"""So many Hangul syllables and nothing else are Korean even without spaces: some of so many Chinese characters would be
no syllables in the Korean encoding."""


def decoded(content: bytes) -> tuple[str, str] | None:
    """Decode a text whose encoding is not known.

    Returns:
        The text, and what was guessed about it as a phrase, or "" if nothing was; None if it is no text in any
        supported encoding.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            text = _try(content[len(mark) :], encoding)
            return None if text is None else (text, "")
    if b"\0" in content:  # UTF-16 without a mark: in ordinary text every other byte is zero
        text = _try(content, "utf-16-be" if content[:1] == b"\0" else "utf-16-le")
        return None if text is None else (text, "read as UTF-16")
    text = _try(content, "utf-8")
    if text is not None:
        return text, ""
    if (mended := _utf8_with_stray_bytes(content)) is not None:
        return mended, "UTF-8 with other bytes in between, which were read as Windows-1252"
    for encoding in _candidates(content):
        if (text := _try(content, encoding)) is not None:
            return text, f"read as {NAMES[encoding]}"
    return None


def _utf8_with_stray_bytes(content: bytes) -> str | None:
    """Decode a text that is mostly UTF-8, as two programs with different encodings write it together."""
    strays = 0

    def as_western(error: UnicodeError) -> tuple[str, int]:
        nonlocal strays
        assert isinstance(error, UnicodeDecodeError)
        strays += 1
        byte = error.object[error.start : error.start + 1]
        return byte.decode("cp1252", "replace"), error.start + 1

    codecs.register_error("crucible.western", as_western)
    text = content.decode("utf-8", "crucible.western")
    others = sum(not letter.isascii() for letter in text) - strays
    return text if others > strays else None


def _candidates(content: bytes) -> list[str]:
    """Return the encodings to try, the most likely first."""
    fallback = ["gb18030", "cp1252"]
    if _looks_western(content):
        return ["cp1252", *fallback]
    pairs = b"".join(re.findall(rb"[\x80-\xff]+", content))
    russian = _try(content, "cp1251")
    if russian and all(_RUSSIAN_WORD.fullmatch(word) for word in re.findall("[^\x00-\x7f]+", russian)):
        return ["cp1251", *fallback]
    # A few Chinese letters may all look like syllables too, but there are no spaces between them.
    spaced = re.search(rb"[\x80-\xff] [\x80-\xff]", content) is not None
    if _HANGUL.fullmatch(pairs) and (spaced or len(pairs) >= 2 * MANY_HANGUL):
        return ["cp949", *fallback]
    japanese = _try(content, "cp932")
    half_width = re.search("[\uff66-\uff9f]", japanese or "")  # what texts in other encodings look like
    beyond = re.sub("[\x00-\x7f]", "", japanese or "")
    if beyond and not half_width and len(_KANA.findall(beyond)) * 4 >= len(beyond):
        return ["cp932", *fallback]
    common_gb = sum(map(len, _COMMON_GB.findall(pairs))) if _try(content, "gb18030") else 0
    common_big5 = sum(map(len, _COMMON_BIG5.findall(content))) if _try(content, "big5") else 0
    return ["big5", *fallback] if common_big5 > common_gb else fallback


def _looks_western(content: bytes) -> bool:
    """Return whether bytes beyond ASCII stand alone, like accented letters in words, and not in pairs, as in Chinese.

    Most texts in either encoding are also valid in the other one (GB 18030 is a superset of GBK).
    """
    runs = re.findall(rb"([A-Za-z]?)([\x80-\xff]+)([A-Za-z]?)", content)
    western = [len(run) == 1 or (len(run) == 2 and before and after) for before, run, after in runs]
    beyond = re.sub("[\x00-\x7f]", "", content.decode("cp1252", "replace"))
    usual = sum(letter.isalpha() or letter in _PUNCTUATION for letter in beyond)
    return sum(map(bool, western)) * 2 > len(runs) and usual * 4 >= len(beyond) * 3


def _try(content: bytes, encoding: str) -> str | None:
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
