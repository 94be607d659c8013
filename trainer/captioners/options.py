"""The options of captioning.

Imports only the standard library, because the node's widgets are built from this module.
"""

from __future__ import annotations

from dataclasses import dataclass, field

DETAILS = ("short", "detailed", "more detailed")
LANGUAGES = ("en", "zh")
MODES = ("only_missing", "replace", "append", "prepend")

_TOKENS = {"short": 64, "detailed": 256, "more detailed": 512}
"""The most tokens of a text by its detail, used if no length is requested."""


@dataclass(frozen=True)
class CaptionStyle:
    """The way a captioner writes. Each kind of captioner uses the values that apply to it.

    Attributes:
        detail: how much is described, one of `DETAILS`.
        language: the language, one of `LANGUAGES`, of the instruction made from `detail`, and so of the answer.
        instruction: the user's instruction for chat models, in place of the one made from `detail` and `language`.
        max_length: the most words (Chinese: characters) or tags of a text; 0 leaves the length to the captioner.
        general_threshold: the lowest probability at which a general tag is used.
        character_threshold: the lowest probability at which a character's name is used; above 1, no names are used.
        rating_tag: whether taggers add a tag that rates how safe for work the image is.
    """

    detail: str = "detailed"
    language: str = "en"
    instruction: str = ""
    max_length: int = 0
    general_threshold: float = 0.35
    character_threshold: float = 0.75
    rating_tag: bool = False

    @property
    def max_new_tokens(self) -> int:
        """The most tokens to generate: enough for `max_length` words, of which names and rare ones take several."""
        return 2 * self.max_length + 16 if self.max_length else _TOKENS[self.detail]


@dataclass(frozen=True)
class CaptionOptions:
    """The way captions are written and combined with existing ones.

    Attributes:
        mode: which images are captioned and what happens to existing captions, one of `MODES`.
        trigger_word: a word that every caption must contain; it is put in front of captions without it.
        blocked_words: words, phrases or tags that are removed from the captioner's texts.
        batch_size: the number of images captioned together; 0 uses the captioner's default.
        style: the way the captioner writes.
    """

    mode: str = "only_missing"
    trigger_word: str = ""
    blocked_words: tuple[str, ...] = ()
    batch_size: int = 0
    style: CaptionStyle = field(default_factory=CaptionStyle)


def split_words(text: str) -> tuple[str, ...]:
    """Split a user's list of words at commas and line breaks, and normalize the spaces within each entry."""
    parts = text.replace("\n", ",").replace("，", ",").split(",")
    return tuple(" ".join(part.split()) for part in parts if part.strip())
