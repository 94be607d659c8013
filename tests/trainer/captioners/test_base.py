"""Tests of where captioners' texts end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lora_crucible.captioners.blip import BlipCaptioner
from lora_crucible.captioners.options import CaptionStyle

END, PAD = 9, 0
STYLE = CaptionStyle(max_length=1)  # 18 tokens


def written(text: str, tokens: list[int]) -> str:
    """Return the captioner's text for a model's output of these tokens after one token of the prompt."""
    captioner = BlipCaptioner(Path("nowhere"))
    captioner._module = SimpleNamespace(
        generate=lambda **_: torch.tensor([[5, *tokens]]), generation_config=SimpleNamespace(eos_token_id=[END])
    )
    tokenizer = SimpleNamespace(eos_token_id=None, sep_token_id=None, batch_decode=lambda *_, **__: [text])
    captioner.processor = SimpleNamespace(tokenizer=tokenizer)
    return captioner.generate({}, STYLE, lambda: None, prompt_tokens=1)[0]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (" A cat sits. It has a re", "A cat sits."),
        ("a cat on a re", "a cat on a"),
        ("一只猫。它在", "一只猫。"),
        ("cat", "cat"),
    ],
)
def test_a_text_that_was_cut_off_has_no_loose_end(text: str, kept: str) -> None:
    assert written(text, [7] * 18) == kept


def test_a_text_that_ended_by_itself_is_whole() -> None:
    assert written("a cat on a red", [7] * 17 + [END]) == "a cat on a red"
    assert written("a cat on a red", [7, END] + [PAD] * 16) == "a cat on a red"
    assert written("a cat on a red", [7, 7, 7]) == "a cat on a red"
