"""Captions that lie beside the images, and the trigger word in them."""

from __future__ import annotations

import re
from pathlib import Path

from ..text_files import read_text

CAPTION_EXTENSIONS = (".txt", ".TXT")

_CJK = "\u3040-\u30ff\u3400-\u9fff"
"""Scripts that put no space between words, so that a trigger word may stand right beside them."""


def caption_path(image_path: Path) -> Path | None:
    """The caption file that belongs to an image (same name, .txt), or None."""
    for extension in CAPTION_EXTENSIONS:
        path = image_path.with_suffix(extension)
        if path.is_file():
            return path
    return None


def read_caption(image_path: Path) -> str | None:
    """Reads an image's caption, with line ends and runs of spaces folded to one space.

    Returns:
        The caption, or None where there is no caption file, or nothing in it.

    Raises:
        CrucibleError: the caption file cannot be read, or is not text.
    """
    path = caption_path(image_path)
    return None if path is None else " ".join(read_text(path).split()) or None


def with_trigger_word(caption: str, trigger_word: str) -> str:
    """Puts the trigger word in front of a caption, unless the caption holds it, as `holds_word` says."""
    if not trigger_word or holds_word(caption, trigger_word):
        return caption
    return f"{trigger_word}, {caption}" if caption else trigger_word


def holds_word(text: str, word: str) -> bool:
    """Whether a text holds a word by itself, not as a part of a longer word, in upper or lower case."""
    inside_word = rf"[^\W{_CJK}]"
    pattern = rf"(?<!{inside_word}){re.escape(word.casefold())}(?!{inside_word})"
    return re.search(pattern, text.casefold()) is not None
