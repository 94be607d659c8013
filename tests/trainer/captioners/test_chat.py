"""Tests of the instructions for chat models."""

from __future__ import annotations

import pytest
from lora_crucible.captioners.chat import instruction
from lora_crucible.captioners.options import DETAILS, LANGUAGES, CaptionStyle


def test_every_style_has_its_own_instruction() -> None:
    made = {instruction(CaptionStyle(detail=detail, language=language)) for detail in DETAILS for language in LANGUAGES}
    assert len(made) == len(DETAILS) * len(LANGUAGES)


@pytest.mark.parametrize(("language", "said"), [("en", "at most 30 words"), ("zh", "不超过30个字")])
def test_the_length_is_said(language: str, said: str) -> None:
    assert said in instruction(CaptionStyle(language=language, max_length=30))
    assert "30" not in instruction(CaptionStyle(language=language))


def test_chinese_is_asked_for_in_chinese() -> None:
    text = instruction(CaptionStyle(language="zh", detail="short"))
    assert "一句话" in text
    assert not any(letter.isascii() and letter.isalpha() for letter in text)


def test_the_users_own_instruction_is_taken_as_it_is() -> None:
    assert instruction(CaptionStyle(instruction=" Name the colours. ", max_length=5)) == "Name the colours."
