"""Rows that spoil a training are named, and clean rows are not."""

from __future__ import annotations

import pytest
from lora_crucible.data.text.rows import Row, Turn
from lora_crucible.data.text.text_checks import check_texts, script_of

SUBJECTS = ("the river", "a lamp", "my boots", "the clock", "an owl", "this bridge", "her violin", "a kite")
PLACES = ("at dawn", "in March", "near Oslo", "by the sea", "on a roof")


def row(number: int, prompt: str, answer: str) -> Row:
    return Row(f"a.jsonl, line {number}", "prompt_completion", (Turn("user", prompt), Turn("assistant", answer)))


CLEAN = [
    row(number, f"Tell me of {subject} {place}", f"Well, {subject}! It waits {place}, and it has {number} stories.")
    for number, (subject, place) in enumerate((s, p) for s in SUBJECTS for p in PLACES)
]


def found(*rows: Row) -> dict[str, tuple[str, ...]]:
    return {finding.kind: finding.images for finding in check_texts(rows)}


def test_clean_rows_have_no_findings() -> None:
    assert found(*CLEAN) == {}
    enhancing = [row(n, f"{one} heart", f"a {one} heart on a white background") for n, one in enumerate("abcdefgh")]
    assert found(*enhancing) == {}
    labels = [
        row(n, f"Is {one} an animal?", answer) for n, (one, answer) in enumerate(zip(SUBJECTS, "yn" * 4, strict=True))
    ]
    assert found(*labels) == {}


@pytest.mark.parametrize(
    ("kind", "prompt", "answer"),
    [
        ("duplicates", "tell me  of the river at dawn", "Well, the river! It waits at dawn, and it has 0 stories."),
        ("too_short", "Say something", "..."),
        ("mixed_languages", "请讲讲这条河", "这条河在黎明时分等待,它有很多故事。"),
        ("repeats_prompt", "What is the name of it?", "What is the name of it? It is Bob."),
        ("empty_prompts", "", "Well, a cat! It waits."),
    ],
)
def test_each_fault_is_named(kind: str, prompt: str, answer: str) -> None:
    assert found(*CLEAN, row(99, prompt, answer)) == {kind: ("a.jsonl, line 99",)}


def test_answers_much_shorter_than_the_others() -> None:
    long = [
        row(n, f"Explain {s} to {p}", " ".join(f"{s}{p}{k}" for k in range(40)))
        for s in SUBJECTS
        for n, p in enumerate(PLACES)
    ]
    assert found(*long, row(99, "Explain it", "No idea")) == {"too_short": ("a.jsonl, line 99",)}


def test_near_duplicates_are_named_with_their_pair() -> None:
    text = " ".join(f"w{number}" for number in range(60))
    near = [row(97, "Tell it", text), row(98, "Tell it", text.replace("w30", "other"))]
    assert found(*CLEAN, *near) == {"near_duplicates": ("a.jsonl, line 97 and a.jsonl, line 98",)}


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("hello", "Latin"),
        ("Привет", "Cyrillic"),
        ("你好 world", "Chinese"),
        ("これは猫です漢字漢字漢字", "Japanese"),
        ("12", ""),
    ],
)
def test_scripts(text: str, script: str) -> None:
    assert script_of(text) == script
