"""Rows that are too long are split, cut at the front of the prompt, left out, or an error, as the setting says."""

from __future__ import annotations

import pytest
from lora_crucible.data.text.chat_rendering import ChatRenderer
from lora_crucible.data.text.long_rows import AnswerTooLong, fitted
from lora_crucible.data.text.rows import Row, Turn
from tiny_tokenizers import of_family

LONG = " ".join(f"word{number}" for number in range(60))


def talk(*texts: str, system: str = "") -> Row:
    turns = [Turn("user" if number % 2 == 0 else "assistant", text) for number, text in enumerate(texts)]
    return Row("a.jsonl, line 1", "messages", (*([Turn("system", system)] if system else []), *turns))


@pytest.mark.parametrize("family", ["chatml", "llama3", "mistral", "gemma", "qwen3"])
def test_the_front_of_a_prompt_is_cut_and_the_template_stays(family: str) -> None:
    renderer = ChatRenderer(of_family(family))
    whole = renderer.conversation(talk(LONG, "fine").turns)
    one = fitted(renderer, talk(LONG, "fine"), 100, "auto")
    (part,) = one.parts
    assert (one.outcome, one.length) == ("cut", len(whole.tokens))
    assert 90 < len(part.tokens) <= 100
    text, full = renderer.decode(part.tokens), renderer.decode(whole.tokens)
    begin = full.index("word0")
    assert text[:begin] == full[:begin]
    assert full.endswith(text[begin:])
    assert text[begin:].startswith("word")
    assert renderer.decode([t for t, is_trained in zip(part.tokens, part.trained, strict=True) if is_trained]) in full
    assert sum(part.trained) == sum(whole.trained)


def test_old_turns_become_an_example_of_their_own() -> None:
    renderer = ChatRenderer(of_family("chatml"))
    row = talk("a", "one", "b", "two", "c" * 40, "three", system="Be brief.")
    one = fitted(renderer, row, 120, "auto")
    texts = [renderer.decode(part.tokens) for part in one.parts]
    assert all("Be brief." in text for text in texts)
    assert ["one" in text for text in texts] == [True, False]
    assert ["two" in text and "three" in text for text in texts] == [False, True]
    answers = "".join(
        renderer.decode([t for t, is_trained in zip(part.tokens, part.trained, strict=True) if is_trained])
        for part in one.parts
    )
    assert answers == "one<|im_end|>two<|im_end|>three<|im_end|>"


def test_an_answer_is_never_cut() -> None:
    renderer = ChatRenderer(of_family("chatml"))
    with pytest.raises(AnswerTooLong, match=r"answer that takes .* tokens.*max_seq_length"):
        fitted(renderer, talk("hi", LONG), 100, "auto")
    with pytest.raises(AnswerTooLong):
        fitted(renderer, talk("hi", LONG, "hi", "fine"), 100, "cut_prompt")


@pytest.mark.parametrize("family", ["chatml", "mistral"])
def test_texts_are_split_and_every_token_is_trained_once(family: str) -> None:
    made = of_family(family)
    renderer = ChatRenderer(made)
    one = fitted(renderer, Row("a.txt, line 1", "text", (), LONG), 100, "auto")
    assert one.outcome == "split"
    lengths = [len(part.tokens) for part in one.parts]
    assert max(lengths) <= 100
    assert max(lengths) - min(lengths) < 10
    front = int(made.bos_token_id is not None)
    assert "".join(renderer.decode(part.tokens[front:]) for part in one.parts) == LONG + made.eos_token
    assert all(part.tokens[0] == made.bos_token_id for part in one.parts) or not front
    assert all(part.trained == (False, *[True] * (len(part.tokens) - 1)) for part in one.parts)
    assert [part.tokens[-1] == renderer.stop_token for part in one.parts] == [False] * (len(lengths) - 1) + [True]


def test_what_the_setting_does_not_cut_is_left_out() -> None:
    renderer = ChatRenderer(of_family("chatml"))
    text = Row("a.txt, line 1", "text", (), LONG)
    assert fitted(renderer, talk(LONG, "fine"), 100, "leave_out").outcome == "left_out"
    assert fitted(renderer, talk(LONG, "fine"), 100, "split").outcome == "left_out"
    assert fitted(renderer, text, 100, "leave_out").outcome == "left_out"
    assert fitted(renderer, text, 100, "cut_prompt").outcome == "left_out"
    assert fitted(renderer, text, 1000, "leave_out").outcome == "whole"
