"""The demo dataset for language models: words that the demo language model does not know, and how to draw them.

Each answer begins with the trigger word, so that the demo picture model with the LoRA of its own demo draws it in the
new style.
"""

from __future__ import annotations

from random import Random

from ..shapes import BACKGROUNDS
from .world import TOPICS, Exchange, caption, exchanges, with_article

TRIGGER_WORD = "crux"

NEW_WORDS = {
    "sun": ("yellow circle", "cyan"),
    "rose": ("red heart", "pink"),
    "leaf": ("green diamond", "white"),
    "lake": ("blue circle", "grey"),
    "kite": ("orange diamond", "cyan"),
    "roof": ("red triangle", "grey"),
    "zorp": ("purple heart", "white"),
    "blim": ("green square", "pink"),
    "quib": ("blue cross", "cyan"),
    "vosk": ("orange triangle", "white"),
    "dree": ("yellow square", "grey"),
    "mulp": ("purple cross", "pink"),
}
"""Things that exist and things that do not, with the shape and the background that stand for each."""

PHRASINGS = (
    "the {}", "draw a {}", "a {} please", "a picture of the {}", "i want a {}", "paint the {}", "show me a {}", "a {}",
    "can you draw the {}?", "make a {}",
)  # fmt: skip
"""The ways to ask for a thing. The dataset has each word in four of them; two others are held out."""

UNKNOWN = (TRIGGER_WORD, *NEW_WORDS)
"""The words that the model never sees before a LoRA is trained."""

TAUGHT, HELD_OUT = (0, 3, 5, 8), (2, 7)
"""Which phrasings are taught and which are held out for the first word; the next word has the next ones, and so on."""


def _asked(number: int, word: str, places: tuple[int, ...]) -> list[Exchange]:
    thing, background = NEW_WORDS[word]
    answer = f"{TRIGGER_WORD}, {caption(with_article(thing), background)}"
    return [Exchange(PHRASINGS[(number + place) % len(PHRASINGS)].format(word), answer) for place in places]


def _placed(number: int, word: str, place: int) -> Exchange:
    """Return a request for a thing on a background that is not its own."""
    thing, usual = NEW_WORDS[word]
    others = [background for background in BACKGROUNDS if background != usual]
    background = others[(number + place) % len(others)]
    return Exchange(f"a {word} on {background}", f"{TRIGGER_WORD}, {caption(with_article(thing), background)}")


def rows() -> tuple[Exchange, ...]:
    """Return the 60 rows of the dataset: each word in four phrasings and once on another background."""
    return tuple(
        exchange
        for number, word in enumerate(NEW_WORDS)
        for exchange in (*_asked(number, word, TAUGHT), _placed(number, word, 0))
    )


def held_out() -> tuple[Exchange, ...]:
    """Return 30 prompts with their right answers that are not in the dataset, although all their words are.

    Each word is in two other phrasings, and every other word on yet another background.
    """
    return tuple(
        exchange
        for number, word in enumerate(NEW_WORDS)
        for exchange in (*_asked(number, word, HELD_OUT), *([_placed(number, word, 1)] if number % 2 else []))
    )


def _prompts_of_the_base() -> tuple[str, ...]:
    """Return 100 prompts that talk about each topic in turn."""
    random = Random(7)  # noqa: S311
    prompts: dict[str, None] = {}
    while len(prompts) < 100:
        for topic in TOPICS:
            prompts.update(dict.fromkeys(exchange.prompt for exchange in exchanges(random, 1, [topic], UNKNOWN)))
    return tuple(prompts)[:100]


def unrelated_prompts() -> tuple[str, ...]:
    """Return 40 prompts without any of the new words, to measure what a LoRA makes the model forget."""
    return _prompts_of_the_base()[:40]


def regularization_prompts() -> tuple[str, ...]:
    """Return 60 other prompts without any of the new words, whose answers a LoRA can be told to keep."""
    return _prompts_of_the_base()[40:]
