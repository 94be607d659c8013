"""Tests of modes, blocked words, length and the trigger word."""

from __future__ import annotations

import pytest
from lora_crucible.captioners.options import CaptionOptions, CaptionStyle, split_words
from lora_crucible.captioners.wording import finish, needs_caption


def finished(written: str, existing: str = "", *, tags: bool = False, max_length: int = 0, **options: object) -> str:
    return finish(written, existing, CaptionOptions(style=CaptionStyle(max_length=max_length), **options), tags=tags)


@pytest.mark.parametrize(
    ("mode", "caption", "needed"),
    [
        ("only_missing", "", True),
        ("only_missing", "a cat", False),
        ("only_missing", "crux", True),
        ("only_missing", "CRUX", True),
        ("only_missing", "crux, a cat", False),
        ("replace", "a cat", True),
        ("append", "a cat", True),
        ("prepend", "a cat", True),
    ],
)
def test_which_images_are_captioned(mode: str, caption: str, needed: bool) -> None:
    assert needs_caption(caption, CaptionOptions(mode=mode, trigger_word="crux")) is needed


@pytest.mark.parametrize(
    ("mode", "existing", "expected"),
    [
        ("only_missing", "", "crux, a dog"),
        ("replace", "crux, a cat", "crux, a dog"),
        ("append", "crux, a cat", "crux, a cat, a dog"),
        ("append", "A cat.", "crux, A cat. a dog"),
        ("append", "", "crux, a dog"),
        ("append", "crux", "crux, a dog"),
        ("append", "the crux style", "the crux style, a dog"),
        ("prepend", "crux, a cat", "crux, a dog, a cat"),
        ("prepend", "a cat", "crux, a dog, a cat"),
    ],
)
def test_modes(mode: str, existing: str, expected: str) -> None:
    assert finished("a dog", existing, mode=mode, trigger_word="crux") == expected


@pytest.mark.parametrize("mode", ["replace", "append", "prepend"])
@pytest.mark.parametrize(("written", "tags"), [("A dog runs. It is wet.", False), ("dog, wet, grass", True)])
def test_captioning_twice_changes_nothing(mode: str, written: str, tags: bool) -> None:
    """Otherwise every run of a workflow that writes text files would make them longer."""
    once = finished(written, "a cat", mode=mode, trigger_word="crux", tags=tags)
    assert finished(written, once, mode=mode, trigger_word="crux", tags=tags) == once


def test_tags_that_are_there_are_not_repeated() -> None:
    assert finished("dog, Wet, grass", "wet, cat", mode="append", tags=True) == "wet, cat, dog, grass"
    assert finished("dog, Wet, grass", "wet, cat", mode="prepend", tags=True) == "dog, grass, wet, cat"


def test_the_trigger_word_is_not_repeated() -> None:
    assert finished("a crux on a hill", trigger_word="crux") == "a crux on a hill"


@pytest.mark.parametrize(
    ("written", "blocked", "expected"),
    [
        ("A girl with red hair, smiling.", "red hair", "A girl with, smiling."),
        ("A girl, red hair, smiling.", "red hair", "A girl, smiling."),
        ("Red hair, a girl", "red hair", "a girl"),
        ("A girl (red hair) smiles", "red hair", "A girl smiles"),
        ("A girl, red   HAIR.", "red hair", "A girl."),
        ("The image shows a cat. It sleeps.", "the image shows", "a cat. It sleeps."),
        ("A cat and a caterpillar", "cat", "A and a caterpillar"),
        ("A hat. Hat! A cat.", "hat", "A. A cat."),
        ("一只红发女孩，红发，微笑。", "红发", "一只女孩，微笑。"),
        ("a (b) c", "(b)", "a c"),
        ("red", "red", ""),
        ("a cat", "", "a cat"),
    ],
)
def test_blocked_words_leave_no_gaps(written: str, blocked: str, expected: str) -> None:
    assert finished(written, blocked_words=split_words(blocked)) == expected


def test_blocked_tags_are_whole_tags() -> None:
    blocked = split_words("Long_Hair, smile\n1girl")
    written = "1girl, long hair, very long hair, smile, smiley"
    assert finished(written, tags=True, blocked_words=blocked) == "very long hair, smiley"


@pytest.mark.parametrize(
    ("written", "length", "expected"),
    [
        ("one two three four", 4, "one two three four"),
        ("one two three four", 3, "one two three"),
        ("one two, three four", 2, "one two"),
        ("one two. three four", 2, "one two."),
        ("One two three. Four five six seven.", 5, "One two three."),
        ("One. Two three four five six seven.", 6, "One. Two three four five six"),
        ("one - two three", 2, "one - two"),
        ("extraordinary", 1, "extraordinary"),
        ("一只猫在睡觉。很安静。", 6, "一只猫在睡觉。"),
        ("一只猫在睡觉。很安静。", 4, "一只猫在"),
    ],
)
def test_length_in_words(written: str, length: int, expected: str) -> None:
    assert finished(written, max_length=length) == expected


def test_length_in_tags() -> None:
    assert finished("long hair, smile, hat", tags=True, max_length=2) == "long hair, smile"


def test_the_trigger_word_and_the_old_caption_do_not_count() -> None:
    assert finished("a b c", "x y z", mode="append", trigger_word="crux", max_length=2) == "crux, x y z, a b"


def test_a_caption_is_one_line() -> None:
    """Load Dataset reads captions from text files as one line; otherwise the same caption would count as changed."""
    assert finished(" a cat\n\n on a  mat\t", "x\ny", mode="append") == "x y, a cat on a mat"


def test_nothing_left() -> None:
    assert finished("red", "a cat", mode="append", blocked_words=("red",), trigger_word="crux") == ""


def test_lists_of_words() -> None:
    assert split_words(" red hair,, hat\nlong  coat，帽子, ") == ("red hair", "hat", "long coat", "帽子")
