"""Near-duplicates are found among many texts, and short texts that differ in a word are none."""

from __future__ import annotations

import random
import time

from lora_crucible.data.text.similar_texts import similar_texts

WORDS = [f"word{number}" for number in range(2000)]


def text_of(draw: random.Random, count: int = 60) -> str:
    return " ".join(draw.choices(WORDS, k=count))


def test_case_punctuation_and_a_few_words() -> None:
    draw = random.Random(0)
    texts = [text_of(draw) for _ in range(50)]
    other = texts[7].split()
    other[30] = "changed"
    texts += [texts[3].upper().replace(" ", ", "), " ".join(other), text_of(draw)]
    assert similar_texts(texts) == [[3, 50], [7, 51]]


def test_short_texts_that_differ_in_a_word_are_others() -> None:
    colours = ("red", "green", "blue", "yellow")
    texts = [f"crux, a {one} circle on a {other} background" for one in colours for other in colours]
    assert similar_texts(texts) == []
    assert similar_texts(["一颗红色的心", "一颗红色的星", "一颗红色的心。"]) == [[0, 2]]
    assert similar_texts(["", "!", "?", ""]) == [[0, 3]]


def test_many_texts_take_seconds() -> None:
    draw = random.Random(1)
    texts = [text_of(draw, 40) for _ in range(5000)]
    start = time.perf_counter()
    assert similar_texts([*texts, texts[0]]) == [[0, 5000]]
    assert time.perf_counter() - start < 10
