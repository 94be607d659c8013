"""Guessing the purpose of a dataset from its captions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ...config.output_settings import Purpose
from .captions import holds_word
from .words import EMPTY_WORDS, VIEWS

PEOPLE = (
    "1girl",
    "girl",
    "woman",
    "lady",
    "1boy",
    "boy",
    "man",
    "guy",
    "person",
    "character",
    "女孩",
    "少女",
    "女人",
    "男孩",
    "少年",
    "男人",
    "人物",
)
STYLES = ("style", "artstyle", "aesthetic", "画风", "风格")
MARKS = ("logo", "font", "icon", "emblem", "lettering", "typeface", "标志", "字体", "图标")

MOST = 0.6
"""The fraction of captions that counts as most of them."""

NEARLY_ALL = 0.8
"""The fraction of captions that counts as nearly all of them."""

TELLING_CAPTIONS = 8
"""The number of different captions from which it means something that they name different things."""

_SCENERY = EMPTY_WORDS | {"background", "scene", "white", "black"}


def likely_purpose(captions: Sequence[str], trigger_word: str = "") -> tuple[Purpose, str]:
    """Guess the purpose of a dataset, and give the reason as a phrase; `concept` if the captions do not tell.

    Captions name what varies: those of a style name many things, those of a character or an object the same one.
    """
    different = set(captions) - {"", trigger_word}
    if trigger_word and any(word in trigger_word.casefold() for word in STYLES):
        return "style", f'the trigger word is "{trigger_word}"'
    if not different:
        return "concept", "the images have no captions of their own that describe them"
    if _share(captions, STYLES) >= MOST:
        return "style", "most captions mention a style"
    if _share(captions, MARKS) >= MOST:
        return "object", "most captions mention a logo, icon or lettering"
    person, share = _most_named(captions, PEOPLE)
    if share >= MOST:
        return "character", f'{share:.0%} of the captions mention the same kind of person: "{person}"'
    shared = _shared_words(captions, trigger_word)
    if shared:
        return "object", f'nearly all captions name the same thing: "{shared[0]}"'
    if _share(captions, VIEWS) >= MOST:
        return "character", "most captions say how a character is seen"
    if len(different) >= TELLING_CAPTIONS and all(caption.isascii() for caption in captions):
        return "style", "the captions name different things, so what the images have in common is their look"
    return "concept", "the captions do not tell what the images have in common"


def _share(captions: Sequence[str], words: Sequence[str]) -> float:
    return sum(any(holds_word(caption, word) for word in words) for caption in captions) / len(captions)


def _most_named(captions: Sequence[str], words: Sequence[str]) -> tuple[str, float]:
    shares = {word: _share(captions, [word]) for word in words}
    word = max(shares, key=lambda one: shares[one])
    return word, shares[word]


def _shared_words(captions: Sequence[str], trigger_word: str) -> list[str]:
    """Return the meaningful words that nearly all captions contain, most frequent first."""
    own = set(re.findall(r"\w+", trigger_word.casefold()))
    words = (re.findall(r"[a-z]{3,}", caption.casefold()) for caption in captions)
    counts = Counter(word for found in words for word in dict.fromkeys(found))  # a set would order ties by chance
    return [
        word
        for word, count in counts.most_common()
        if count >= NEARLY_ALL * len(captions) and word not in own and word not in _SCENERY
    ]
