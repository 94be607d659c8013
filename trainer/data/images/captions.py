"""Finds the captions of an image, and makes of them what is trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...config.data_settings import CaptionSource, DataSettings
from ...files.text import read_text
from .metadata_files import MetadataFile
from .scan import CAPTION_EXTENSIONS, FoundImage

SHUFFLES = 8
"""Orders of an image's tags that are drawn from when they are shuffled; each is encoded once."""

_CJK = "\u3040-\u30ff\u3400-\u9fff"
"""Scripts that put no space between words, so that a trigger word may stand right beside them."""


@dataclass(frozen=True)
class FoundCaptions:
    """The captions of one image, before anything is added to them.

    Attributes:
        captions: none, one, or several of which one is drawn each time.
        source: where they are from: a file's name, `file name` or `folder name`.
        others: sources that have other captions for the image and were not used.
    """

    captions: tuple[str, ...] = ()
    source: str = ""
    others: tuple[str, ...] = ()


def find_captions(
    image: FoundImage, source: CaptionSource, metadata: Sequence[MetadataFile] = (), *, per_line: bool = False
) -> FoundCaptions:
    """The captions of an image.

    Args:
        source: where to look. `auto` takes the first that has a caption: .txt, .caption, then `metadata` in its order.
        per_line: each line of a text file is a caption of its own; else the lines are folded into one.

    Raises:
        CrucibleError: a caption file cannot be read, or is not text.
    """
    found: list[tuple[str, tuple[str, ...]]] = []
    if source == "file_name":
        found = [("file name", _words(image.path.stem))]
    elif source == "folder_name":
        found = [("folder name", _words(re.sub(r"^\d+_", "", image.path.parent.name)))]
    if source in ("auto", "sidecar"):
        found += [(path.name, _read(path, per_line)) for path in caption_paths(image.path)]
    if source in ("auto", "metadata"):
        found += [(file.path.name, file.of(image.name)) for file in metadata]
    found = [(name, captions) for name, captions in found if captions]
    if not found:
        return FoundCaptions()
    name, captions = found[0]
    return FoundCaptions(captions, name, tuple(other for other, texts in found[1:] if texts != captions))


def caption_paths(image_path: Path) -> list[Path]:
    """The caption files of an image: those of its name, the first counting most."""
    candidates = (image_path.with_suffix(extension) for extension in CAPTION_EXTENSIONS)
    paths: list[Path] = []
    for path in candidates:
        # Where case does not count in names, both spellings are one file.
        if path.is_file() and not any(path.samefile(other) for other in paths):
            paths.append(path)
    return paths


def _read(path: Path, per_line: bool) -> tuple[str, ...]:
    text = read_text(path)
    folded = (" ".join(part.split()) for part in (text.split("\n") if per_line else [text]))
    return tuple(dict.fromkeys(part for part in folded if part))


def _words(name: str) -> tuple[str, ...]:
    words = " ".join(name.replace("_", " ").split())
    return (words,) if words else ()


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


def finished(caption: str, settings: DataSettings) -> str:
    """A caption with prefix and suffix, and the trigger word in front where it is not in it."""
    prefix, suffix = settings.caption_prefix.strip(), settings.caption_suffix.strip()
    text = f"{prefix} {caption}".strip()
    text += suffix if suffix.startswith((",", ".")) else f" {suffix}"
    return with_trigger_word(text.strip(), settings.trigger_word)


def variants(caption: str, settings: DataSettings) -> tuple[str, ...]:
    """The orders of a caption's tags that are trained: up to `SHUFFLES`, always the same ones; itself if not shuffled.

    A trigger word in front and the first `keep_tokens` tags behind it stay where they are.
    """
    if not settings.shuffle_caption:
        return (caption,)
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    kept = settings.keep_tokens
    if tags and settings.trigger_word and tags[0].casefold() == settings.trigger_word.casefold():
        kept += 1
    fixed, loose = tags[:kept], tags[kept:]
    random = np.random.default_rng(list(caption.encode("utf-8", "surrogatepass")))
    orders = [[loose[index] for index in random.permutation(len(loose))] for _ in range(SHUFFLES)]
    return tuple(dict.fromkeys(", ".join([*fixed, *order]) for order in orders))
