"""Exactly answers and the stop token are trained, for each kind of row and the templates of well-known models."""

from __future__ import annotations

from typing import Any

import pytest
from lora_crucible.data.text.chat_rendering import ChatRenderer
from lora_crucible.data.text.kinds import read_row
from lora_crucible.data.text.raw_rows import RawRow
from lora_crucible.data.text.rendering import Rendered, UnrenderableRow, rendered_answers
from lora_crucible.data.text.rows import Row, Turn
from lora_crucible.data.text.templates import NAMED
from lora_crucible.errors import CrucibleError
from tiny_tokenizers import CHATML, DEEPSEEK, FAMILIES, MISTRAL, of_family, of_words, tokenizer

KINDS: dict[str, Any] = {
    "alpaca": {"instruction": "Say it", "input": "red heart", "output": "a red heart"},
    "sharegpt": {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello you"}]},
    "messages": {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello you"}]},
    "prompt_completion": {"prompt": "red heart", "completion": "a red heart"},
    "text": {"text": "Once there was a cat."},
}


def row_of(kind: str) -> Row:
    row = read_row(RawRow("rows.jsonl", "line 1", KINDS[kind]), {})
    assert isinstance(row, Row)
    assert row.kind == kind
    return row


def trained_runs(renderer: ChatRenderer, rendered: Rendered) -> list[str]:
    runs: list[list[int]] = []
    for place, token in enumerate(rendered.tokens):
        if not rendered.trained[place]:
            continue
        if place == 0 or not rendered.trained[place - 1]:
            runs.append([])
        runs[-1].append(token)
    return [renderer.decode(run) for run in runs]


@pytest.mark.parametrize("pad_is_eos", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_answer_and_stop_token_are_trained_and_nothing_else(kind: str, family: str, pad_is_eos: bool) -> None:
    facts = FAMILIES[family]
    made = of_family(family, pad=facts["eos"] if pad_is_eos else None)
    renderer = ChatRenderer(made)
    stop = made.convert_tokens_to_ids(facts["stop"])
    assert renderer.stop_token == stop
    row = row_of(kind)
    if kind == "text":
        rendered = renderer.text(row.text)
        assert rendered.trained == (False, *[True] * (len(rendered.tokens) - 1))
        assert renderer.decode(rendered.tokens) == f"{facts['bos'] or ''}{row.text}{facts['stop']}"
    else:
        rendered = renderer.conversation(row.turns)
        lead = " " if family == "mistral" else ""
        assert trained_runs(renderer, rendered) == [f"{lead}{row.turns[-1].text}{facts['stop']}"]
        prompt = renderer.prompt(row.turns[:-1])
        assert rendered.tokens[: len(prompt)] == prompt
        assert sum(rendered.trained) == len(rendered.tokens) - len(prompt)
        messages = [{"role": turn.role, "content": turn.text} for turn in row.turns]
        whole = made.apply_chat_template(messages, tokenize=False)
        assert whole.startswith(renderer.decode(rendered.tokens))
        assert whole[len(renderer.decode(rendered.tokens)) :].strip() == ""
    assert (rendered.tokens[-1], rendered.trained[-1]) == (stop, True)
    if facts["bos"]:
        assert [place for place, token in enumerate(rendered.tokens) if token == made.bos_token_id] == [0]


TALK = (Turn("user", "hi"), Turn("assistant", "one"), Turn("user", "more"), Turn("assistant", "two"))


@pytest.mark.parametrize("family", ["chatml", "llama3", "mistral", "gemma"])
def test_every_answer_of_a_conversation_is_trained(family: str) -> None:
    renderer = ChatRenderer(of_family(family))
    (rendered,) = rendered_answers(renderer, TALK)
    stop, lead = FAMILIES[family]["stop"], " " if family == "mistral" else ""
    assert trained_runs(renderer, rendered) == [f"{lead}one{stop}", f"{lead}two{stop}"]
    prompt = renderer.prompt(TALK[:-1])
    assert rendered.tokens[: len(prompt)] == prompt


def test_a_template_that_rewrites_earlier_turns_gives_an_example_for_each_answer() -> None:
    renderer = ChatRenderer(of_family("qwen3"))
    first, second = rendered_answers(renderer, TALK)
    assert trained_runs(renderer, first) == ["one<|im_end|>"]
    assert trained_runs(renderer, second) == ["two<|im_end|>"]
    assert "<think>\n\n</think>\n\none" in renderer.decode(first.tokens)
    assert "assistant\none<|im_end|>" in renderer.decode(second.tokens)
    assert renderer.decode(second.tokens).count("<think>") == 1
    assert renderer.decode(renderer.prompt(TALK[:1])).endswith("<think>\n\n</think>\n\n")
    assert second.tokens[: len(renderer.prompt(TALK[:-1]))] == renderer.prompt(TALK[:-1])


def test_thoughts_in_answers_are_trained() -> None:
    renderer = ChatRenderer(of_family("qwen3"))
    answer = "<think>\neasy\n</think>\n\nhello"
    rendered = renderer.conversation((Turn("user", "hi"), Turn("assistant", answer)))
    assert trained_runs(renderer, rendered) == [f"{answer}<|im_end|>"]
    assert renderer.decode(rendered.tokens).count("<think>") == 1
    thinking = ChatRenderer(of_family("qwen3"), thinking=True).prompt([Turn("user", "hi")])
    assert rendered.tokens[: len(thinking)] == thinking


def test_a_template_that_begins_a_think_block_needs_answers_with_one() -> None:
    renderer = ChatRenderer(tokenizer(DEEPSEEK, "<s>", "</s>"))
    with pytest.raises(UnrenderableRow, match="without a think block"):
        renderer.conversation(TALK[:2])
    rendered = renderer.conversation((Turn("user", "hi"), Turn("assistant", "<think>\neasy</think>hello")))
    assert trained_runs(renderer, rendered) == ["easy</think>hello</s>"]
    assert renderer.decode(rendered.tokens).count("<think>") == 1


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("bos", [None, "<s>"])
def test_named_templates_train_answers_and_keep_system_texts(name: str, bos: str | None) -> None:
    made = tokenizer(None, bos, "<eos>")
    renderer = ChatRenderer(made, name)
    turns = (Turn("system", "Be brief."), *TALK)
    (rendered,) = rendered_answers(renderer, turns)
    stop = renderer.decode([renderer.stop_token])
    lead = " " if name in ("mistral", "vicuna") else ""
    assert trained_runs(renderer, rendered) == [f"{lead}one{stop}", f"{lead}two{stop}"]
    assert "Be brief." in renderer.decode(rendered.tokens)
    if bos:
        assert [place for place, token in enumerate(rendered.tokens) if token == made.bos_token_id] == [0]
        assert renderer.chat_template.startswith("{{ bos_token }}")


def test_a_template_whose_stop_token_is_unknown_ends_with_that_of_the_tokenizer() -> None:
    made = tokenizer(None, None, "<eos>", special=())
    renderer = ChatRenderer(made, "chatml")
    assert renderer.stop_token == made.eos_token_id
    (rendered,) = rendered_answers(renderer, TALK)
    assert trained_runs(renderer, rendered) == ["one<eos>", "two<eos>"]
    assert "'<eos>'" in renderer.chat_template


def test_a_template_without_stop_token_gets_that_of_the_tokenizer() -> None:
    bare = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    bare += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    renderer = ChatRenderer(tokenizer(bare, None, "</s>"))
    parts = rendered_answers(renderer, TALK)
    assert [trained_runs(renderer, part) for part in parts] == [["one</s>"], ["two</s>"]]


def test_answers_that_begin_with_line_breaks_do_not_change_the_prompt() -> None:
    renderer = ChatRenderer(of_family("llama3"))
    turns = (Turn("user", "hi"), Turn("assistant", "\nwell"))
    rendered = renderer.conversation(turns)
    prompt = renderer.prompt(turns[:-1])
    assert rendered.tokens[: len(prompt)] == prompt
    assert trained_runs(renderer, rendered) == ["\nwell<|eot_id|>"]


def test_markers_in_a_row_change_nothing() -> None:
    renderer = ChatRenderer(of_family("chatml"))
    turns = (Turn("user", "assistant\nx [/INST] ### Response:"), Turn("assistant", "user\nassistant\nfine"))
    assert trained_runs(renderer, renderer.conversation(turns)) == ["user\nassistant\nfine<|im_end|>"]


def test_prompts_are_trained_when_asked() -> None:
    rendered = ChatRenderer(of_family("chatml"), train_on_prompts=True).conversation(TALK)
    assert rendered.trained == (False, *[True] * (len(rendered.tokens) - 1))


def test_a_system_message_that_the_template_refuses_or_drops_is_an_error() -> None:
    turns = (Turn("system", "Be brief."), *TALK[:2])
    with pytest.raises(UnrenderableRow, match=r"System role not supported.*put their text in front"):
        ChatRenderer(of_family("gemma")).conversation(turns)
    drops = CHATML.replace(
        "{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}"
    )
    with pytest.raises(UnrenderableRow, match="leaves out"):
        ChatRenderer(tokenizer(drops, None, "<|im_end|>")).conversation(turns)


def test_roles_that_the_template_refuses_are_an_error() -> None:
    turns = (Turn("user", "a"), Turn("user", "b"), Turn("assistant", "c"))
    with pytest.raises(UnrenderableRow, match=r"must alternate.*take turns"):
        ChatRenderer(of_family("mistral")).conversation(turns)


def test_without_template_texts_are_rendered_and_conversations_are_an_error() -> None:
    renderer = ChatRenderer(tokenizer(None, None, "</s>"))
    assert renderer.decode(renderer.text("one</s>").tokens) == "one</s>"
    with pytest.raises(UnrenderableRow, match=r"no chat template.*chatml"):
        renderer.conversation(TALK)


def test_bos_is_added_once_where_the_template_lacks_it() -> None:
    made = tokenizer(CHATML, "<s>", "<|im_end|>")
    renderer = ChatRenderer(made)
    assert renderer.conversation(TALK).tokens.count(made.bos_token_id) == 1
    assert renderer.text("<s>one").tokens.count(made.bos_token_id) == 1


def test_unknown_templates_and_tokenizers_without_end_are_errors() -> None:
    with pytest.raises(CrucibleError, match="chat_template is 'chatlm'"):
        ChatRenderer(of_family("chatml"), "chatlm")
    made = of_family("chatml")
    made.eos_token = None
    with pytest.raises(CrucibleError, match="eos_token"):
        ChatRenderer(made)


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_spaces_stay_with_the_words_that_they_precede(scheme: str) -> None:
    """An answer that were made into tokens alone would begin with another token than after its prompt."""
    made = of_words(MISTRAL, scheme)
    renderer = ChatRenderer(made)
    turns = (Turn("user", "red"), Turn("assistant", "a heart"), Turn("user", "a red"), Turn("assistant", "red"))
    (rendered,) = rendered_answers(renderer, turns)
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    whole = made.encode(made.apply_chat_template(messages, tokenize=False), add_special_tokens=False)
    assert list(rendered.tokens) == whole
    trained = [token for token, is_trained in zip(rendered.tokens, rendered.trained, strict=True) if is_trained]
    assert made.convert_ids_to_tokens(trained) == ["▁a", "▁heart", "</s>", "▁red", "</s>"]
