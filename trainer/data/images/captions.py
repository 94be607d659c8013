"""Finding the captions of an image and preparing them for training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...config.data_settings import CaptionSource, DataSettings
from ...files.text import read_file_text
from .marks import with_trigger_in_place
from .metadata_files import MatchedCaptions, MetadataFile
from .scan import REPEATS_FOLDER, FoundImage

SHUFFLES = 8
"""The number of orders of a caption's tags to draw from when they are shuffled; each is encoded once."""

_CJK = "\u3040-\u30ff\u3400-\u9fff"
"""Characters of scripts without spaces between words, so that a trigger word may be right next to them."""


@dataclass(frozen=True)
class FoundCaptions:
    """The captions of one image, before anything is added to them.

    Attributes:
        captions: the captions, of which one is drawn each time; there may be none.
        source: the source of the captions: the name of a file, `file name` or `folder name`.
        others: the sources with different captions for the image, which were not used.
        guess: what was guessed about the encoding of the source, or "".
    """

    captions: tuple[str, ...] = ()
    source: str = ""
    others: tuple[str, ...] = ()
    guess: str = ""


def find_captions(
    image: FoundImage,
    source: CaptionSource,
    metadata: Sequence[MetadataFile | MatchedCaptions] = (),
    *,
    per_line: bool = False,
) -> FoundCaptions:
    """Find the captions of an image.

    Args:
        source: where to look. `auto` takes the first with a caption: .txt, .caption, then `metadata` in its order.
        metadata: the metadata files of the dataset.
        per_line: whether each line of a text file is a separate caption; otherwise the lines are joined.

    Raises:
        CrucibleError: a caption file cannot be read, or is not text.
    """
    found: list[tuple[str, tuple[str, ...]]] = []
    guesses: dict[str, str] = {}
    if source == "file_name":
        found = [("file name", _words(image.path.stem))]
    elif source == "folder_name":
        found = [("folder name", _words(re.sub(r"^\d+_", "", image.path.parent.name)))]
    if source in ("auto", "sidecar"):
        for path in image.texts:
            read = read_file_text(path)
            found.append((path.name, _captions(read.text, per_line)))
            guesses[path.name] = read.guess
    if source in ("auto", "metadata"):
        found += [(file.path.name, file.of(image.name)) for file in metadata]
    found = [(name, captions) for name, captions in found if captions]
    if not found:
        return FoundCaptions()
    name, captions = found[0]
    others = tuple(other for other, texts in found[1:] if texts != captions)
    return FoundCaptions(captions, name, others, guesses.get(name, ""))


def _captions(text: str, per_line: bool) -> tuple[str, ...]:
    folded = (" ".join(part.split()) for part in (text.split("\n") if per_line else [text]))
    return tuple(dict.fromkeys(part for part in folded if part))


def class_of(image: FoundImage) -> tuple[str, ...]:
    """Return what the name of a kohya-style folder says its images show, such as ("man",) for 1_man."""
    match = REPEATS_FOLDER.fullmatch(image.path.parent.name)
    return _words(match[2]) if match else ()


def _words(name: str) -> tuple[str, ...]:
    words = " ".join(name.replace("_", " ").split())
    return (words,) if words else ()


def with_trigger_word(caption: str, trigger_word: str) -> str:
    """Add the trigger word to the front of a caption, unless the caption contains it (see `holds_word`)."""
    if not trigger_word or holds_word(caption, trigger_word):
        return caption
    return f"{trigger_word}, {caption}" if caption else trigger_word


def holds_word(text: str, word: str) -> bool:
    """Return whether a text contains a word, not merely as part of a longer word, ignoring case."""
    inside_word = rf"[^\W{_CJK}]"
    pattern = rf"(?<!{inside_word}){re.escape(word.casefold())}(?!{inside_word})"
    return re.search(pattern, text.casefold()) is not None


_UNSEEN = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Letters that are not seen: zero-width spaces, marks of direction, soft hyphens and control characters. Joiners, which
some scripts and emoji need, are none of them."""

_HALVES = re.compile("[\ud800-\udfff]")
"""Halves of characters, which programs leave behind that cut a text in the middle of an emoji."""

DAMAGED = "\ufffd"
"""The sign that takes the place of what could not be read as a letter."""


def legible(caption: str) -> str:
    """Return a caption without letters that are not seen, and with `DAMAGED` in place of halves of characters."""
    return " ".join(_HALVES.sub(DAMAGED, _UNSEEN.sub("", caption)).split())


def finished(caption: str, settings: DataSettings) -> str:
    """Return a caption with prefix and suffix, and with the trigger word in its place or in front if it lacks it."""
    caption = with_trigger_in_place(legible(caption), settings.trigger_word)
    prefix, suffix = settings.caption_prefix.strip(), settings.caption_suffix.strip()
    text = f"{prefix} {caption}".strip()
    text += suffix if suffix.startswith((",", ".")) else f" {suffix}"
    return with_trigger_word(text.strip(), settings.trigger_word)


def variants(caption: str, settings: DataSettings) -> tuple[str, ...]:
    """Return the tag orders in which a caption is trained: up to `SHUFFLES` of them, or just one if not shuffled.

    The orders are always the same for the same caption. A leading trigger word and the first `keep_tokens` tags after
    it stay in place.
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
