"""What can be asked of a captioner. Imports nothing but the standard library: the node's widgets are made of it."""

from __future__ import annotations

from dataclasses import dataclass, field

DETAILS = ("short", "detailed", "more detailed")
LANGUAGES = ("en", "zh")
MODES = ("only_missing", "replace", "append", "prepend")

_TOKENS = {"short": 64, "detailed": 256, "more detailed": 512}
"""Most tokens that a text may have where no length is asked for."""


@dataclass(frozen=True)
class CaptionStyle:
    """How a captioner is to write. Each kind of captioner takes from it what it understands.

    Attributes:
        detail: one of `DETAILS`.
        language: one of `LANGUAGES`: of the instruction that is made from `detail`, and so of the answer.
        instruction: for chat models, in place of the one that is made.
        max_length: of the text, in words (Chinese: characters) or tags; 0 leaves it to the captioner.
        general_threshold: probability from which a tag counts.
        character_threshold: the same for names of characters; above 1 there are none.
        rating_tag: whether a tagger also says how safe for work the image is.
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
        """Tokens that suffice for `max_length` words; names and rare words take several."""
        return 2 * self.max_length + 16 if self.max_length else _TOKENS[self.detail]


@dataclass(frozen=True)
class CaptionOptions:
    """What becomes of the texts.

    Attributes:
        mode: one of `MODES`.
        trigger_word: stands in every caption, in front where the caption does not hold it.
        blocked_words: words, phrases or tags that are taken out of what the captioner wrote.
        batch_size: images that are captioned together; 0 takes the captioner's own.
    """

    mode: str = "only_missing"
    trigger_word: str = ""
    blocked_words: tuple[str, ...] = ()
    batch_size: int = 0
    style: CaptionStyle = field(default_factory=CaptionStyle)


def split_words(text: str) -> tuple[str, ...]:
    """Words as users list them: separated by commas or line breaks."""
    parts = text.replace("\n", ",").replace("，", ",").split(",")
    return tuple(" ".join(part.split()) for part in parts if part.strip())
