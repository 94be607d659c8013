"""Steps from a captioner's text to the caption: blocked words, length, the existing caption, the trigger word."""

from __future__ import annotations

import re

from ..data.images.captions import with_trigger_word
from .base import SENTENCE_ENDS
from .options import CaptionOptions

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Scripts without spaces between words, in which every character counts as a word."""

_PAUSES = ",;:，；：、"
_ENDS = "".join(SENTENCE_ENDS)


def needs_caption(caption: str, options: CaptionOptions) -> bool:
    """Return whether an image with this caption is to be captioned; the trigger word alone does not count as one."""
    return options.mode != "only_missing" or not _without_trigger_word(caption, options.trigger_word)


def finish(written: str, existing: str, options: CaptionOptions, *, tags: bool) -> str:
    """Build the caption from a captioner's text. Doing so again with the result as existing caption changes nothing.

    Args:
        written: the captioner's text.
        existing: the caption that the image already has, or "".
        options: the way captions are written and combined with existing ones.
        tags: whether `written` is a list of tags.

    Returns:
        The caption as one line; "" if nothing is left of `written`.
    """
    text = " ".join(written.split())
    text = _shortened(_without_blocked(text, options.blocked_words, tags), options.style.max_length, tags)
    if not text:
        return ""
    if options.mode in ("append", "prepend"):
        before = _without_trigger_word(existing, options.trigger_word)
        parts = (before, text) if options.mode == "append" else (text, before)
        text = _joined(*parts, new=text, tags=tags)
    return with_trigger_word(text, options.trigger_word)


def _without_trigger_word(caption: str, trigger_word: str) -> str:
    """Return a caption without the trigger word at its start."""
    caption = " ".join(caption.split())
    if not trigger_word:
        return caption
    if caption.casefold() == trigger_word.casefold():
        return ""
    front = f"{trigger_word},"
    return caption[len(front) :].strip() if caption.casefold().startswith(front.casefold()) else caption


def _joined(first: str, second: str, *, new: str, tags: bool) -> str:
    """Join both parts in one line, without repeating what the old part already contains.

    A second run therefore adds nothing.
    """
    if not first or not second:
        return first or second
    old = second if first == new else first
    if tags:
        known = {tag.casefold() for tag in _tags(old)}
        added = ", ".join(tag for tag in _tags(new) if tag.casefold() not in known)
        if not added:
            return old
        first, second = (added, old) if first == new else (old, added)
    elif new.casefold() in old.casefold():
        return old
    return f"{first} {second}" if first.endswith(SENTENCE_ENDS) else f"{first}, {second}"


def _without_blocked(text: str, blocked_words: tuple[str, ...], tags: bool) -> str:
    if tags:
        blocked = {_plain(word) for word in blocked_words}
        return ", ".join(tag for tag in _tags(text) if _plain(tag) not in blocked)
    for word in sorted(blocked_words, key=len, reverse=True):
        text = re.sub(_alone(word), "", text, flags=re.IGNORECASE)
    return _tidied(text) if blocked_words else text


def _alone(word: str) -> str:
    """Return a pattern for a whole word, not part of a longer one; Chinese words need no spaces around them."""
    inside_word = rf"[^\W{_CJK}]"
    spaced = r"\s+".join(map(re.escape, word.split()))
    return rf"(?<!{inside_word}){spaced}(?!{inside_word})"


def _tidied(text: str) -> str:
    """Close the gaps, and remove the stray punctuation, that removed words left."""
    text = re.sub(r"\(\s*\)|（\s*）|\"\s*\"|“\s*”", "", text)
    text = " ".join(text.split())
    text = re.sub(rf"\s+(?=[{_PAUSES}{_ENDS}])", "", text)
    text = re.sub(rf"([{_PAUSES}])(\s*[{_PAUSES}])+", r"\1", text)
    text = re.sub(rf"[{_PAUSES}]\s*(?=[{_ENDS}])", "", text)
    text = re.sub(rf"(?<=[{_ENDS}])\s*[{_PAUSES}{_ENDS}]+(?=\s|$)", "", text)
    return re.sub(rf"^[\s{_PAUSES}{_ENDS}]+|[\s{_PAUSES}]+$", "", text)


def _shortened(text: str, max_length: int, tags: bool) -> str:
    """Cut a text to `max_length` words or tags; prose ends with a complete sentence if that keeps half of the words."""
    if not max_length:
        return text
    if tags:
        return ", ".join(_tags(text)[:max_length])
    words = list(re.finditer(rf"[{_CJK}]|[^\s{_CJK}]+", text))
    # Punctuation alone does not count as a word.
    words = [word for word in words if re.search(r"\w", word[0])]
    if len(words) <= max_length:
        return text
    cut = text[: words[max_length - 1].end()]
    if text[len(cut)] in SENTENCE_ENDS:
        return cut + text[len(cut)]
    end = max(cut.rfind(mark) for mark in SENTENCE_ENDS) + 1
    kept = sum(word.end() <= end for word in words)
    if 2 * kept >= max_length:
        return cut[:end]
    return cut.rstrip(f" -{_PAUSES}")


def _tags(text: str) -> list[str]:
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def _plain(tag: str) -> str:
    return " ".join(tag.replace("_", " ").casefold().split())
