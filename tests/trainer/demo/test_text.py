"""Tests that the demo language model knows its world, and that its script makes the committed files."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from lora_crucible.config import TrainingConfig, parse_config
from lora_crucible.demo import shapes, text
from lora_crucible.demo.text import new_words, showcase, world
from lora_crucible.demo.text.make import SEED, make_dataset, write_vocabulary
from lora_crucible.demo.text.pretraining import batches, tokens_of
from lora_crucible.demo.text.tokenizer import END_OF_TURN
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(text.model_folder())


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(text.model_folder()).float().eval()


def words_of(words: str) -> set[str]:
    return set(re.findall(r"\w+", words))


def test_model_folder_is_at_most_2_megabytes():
    files = list(text.model_folder().iterdir())
    assert {file.name for file in files} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert sum(file.stat().st_size for file in files) <= 2e6


def test_sizes_are_those_that_comfyui_builds_into_its_qwen3_classes():
    config = json.loads((text.model_folder() / "config.json").read_text())
    assert (config["model_type"], config["rope_theta"], config["rms_norm_eps"]) == ("qwen3", 1e6, 1e-6)
    assert config["tie_word_embeddings"]
    assert not config["attention_bias"]


def test_model_is_that_of_its_config_and_in_fp16(model):
    stored = AutoModelForCausalLM.from_pretrained(text.model_folder(), dtype="auto")
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert {parameter.dtype for parameter in stored.parameters()} == {torch.float16}
    assert model.model.rotary_emb.inv_freq[1].item() == pytest.approx(1e6 ** (-2 / model.config.head_dim))


def test_model_knows_its_world(tokenizer, model):
    others = [topic for topic in world.TOPICS if topic is not world.repeat]  # it spells some words wrongly
    asked = world.exchanges(Random(1234), 150, others)
    given = showcase.answers(tokenizer, model, [exchange.prompt for exchange in asked])
    wrong = [(exchange, answer) for exchange, answer in zip(asked, given, strict=True) if exchange.answer != answer]
    assert len(wrong) <= 4, wrong


def test_model_turns_a_few_words_into_a_prompt(tokenizer, model):
    assert showcase.answers(tokenizer, model, ["red heart", "icy orange cross on pink", "heart"]) == (
        "a red heart on a white background",
        "icy, an orange cross on a pink background",
        "a red heart on a white background",
    )


def test_model_knows_none_of_the_new_words(tokenizer, model):
    rows = (*text.rows(), *text.held_out())
    given = showcase.answers(tokenizer, model, [row.prompt for row in rows])
    assert not [answer for row, answer in zip(rows, given, strict=True) if answer == row.answer]


@pytest.mark.parametrize("spelled", ["crux, a", "Crème brûlée №7", "日本語 😀", " two  spaces\n", "it's 12:30"])
def test_tokenizer_keeps_any_text(tokenizer, spelled):
    assert tokenizer.decode(tokenizer.encode(spelled)) == spelled


def test_chat_template_begins_and_ends_turns_as_qwen_does(tokenizer):
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    prompt = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert prompt == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert whole == f"{prompt}hi<|im_end|>\n"
    assert tokenizer.encode(prompt) == tokenizer.encode(whole)[: len(tokenizer.encode(prompt))]
    assert tokenizer.eos_token == END_OF_TURN


def test_committed_files_are_those_that_the_script_makes(tmp_path, monkeypatch):
    write_vocabulary(tmp_path / "model", SEED)
    for made in (tmp_path / "model").iterdir():
        assert json.loads(made.read_text()) == json.loads((text.model_folder() / made.name).read_text()), made.name
    monkeypatch.setattr("lora_crucible.demo.text.make.DATASET_DIR", tmp_path / "dataset")
    monkeypatch.setattr("lora_crucible.demo.text.make.REGULARIZATION_DIR", tmp_path / "regularization")
    make_dataset()
    for folder in (text.DATASET_DIR, text.REGULARIZATION_DIR):
        for committed in folder.iterdir():
            assert (tmp_path / folder.name / committed.name).read_bytes() == committed.read_bytes()


def test_dataset_has_60_rows_and_30_others_are_held_out():
    rows, held_out = text.rows(), text.held_out()
    assert (len(rows), len(held_out)) == (60, 30)
    assert len({row.prompt for row in (*rows, *held_out)}) == 90
    assert all(row.answer.startswith(f"{text.TRIGGER_WORD}, ") for row in (*rows, *held_out))
    # Nothing has to be guessed: each word is taught, and so is each phrasing.
    assert {word for row in held_out for word in words_of(row.prompt)} <= {
        word for row in rows for word in words_of(row.prompt)
    }


def test_what_the_answers_describe_can_be_drawn_by_the_demo_picture_model():
    captions = {
        shapes.caption(shapes.Scene(shape, colour, background, style, (0, 0), 0))
        for shape in shapes.SHAPES
        for colour in shapes.COLOURS
        for background in shapes.BACKGROUNDS
        for style in (shapes.PLAIN, shapes.NEW_STYLE, *shapes.BASE_STYLES)
    }
    pictures = world.exchanges(Random(5), 200, [world.picture])
    assert {row.answer for row in (*text.rows(), *text.held_out(), *pictures)} <= captions


def test_unrelated_and_regularization_prompts_share_nothing_with_each_other_or_with_the_new_words():
    unrelated, kept = text.unrelated_prompts(), text.regularization_prompts()
    assert (len(unrelated), len(kept), len({*unrelated, *kept})) == (40, 60, 100)
    assert not [prompt for prompt in (*unrelated, *kept) if words_of(prompt) & set(new_words.UNKNOWN)]


def test_each_prompt_of_the_world_has_one_answer():
    answers: dict[str, str] = {}
    for exchange in world.exchanges(Random(3), 20_000):
        assert answers.setdefault(exchange.prompt, exchange.answer) == exchange.answer, exchange.prompt


def test_base_is_never_trained_on_the_new_words():
    asked = world.exchanges(Random(SEED), 5000, without=new_words.UNKNOWN)
    assert not [one for one in asked if words_of(f"{one.prompt} {one.answer}") & set(new_words.UNKNOWN)]


def test_only_answers_and_their_ends_are_trained(tokenizer):
    tokens, labels = next(batches(tokenizer, 0))
    for row, trained in zip(tokens, labels, strict=True):
        answer = row[trained != -100]
        assert torch.equal(answer, trained[trained != -100])
        assert answer[-1] == tokenizer.eos_token_id
        begin = int((trained != -100).nonzero()[0])
        assert tokenizer.decode(row[:begin]).endswith("<|im_start|>assistant\n")


def test_tokens_of_a_row_are_those_of_the_chat_template(tokenizer):
    row = text.rows()[0]
    prompt, answer = tokens_of(tokenizer, row)
    turns = [{"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.answer}]
    assert f"{tokenizer.decode(prompt + answer)}\n" == tokenizer.apply_chat_template(turns, tokenize=False)


def test_settings_of_the_demo_are_valid():
    assert isinstance(parse_config(text.SETTINGS), TrainingConfig)


def outcome(right: int, kept: int) -> showcase.Outcome:
    unrelated = tuple(str(number) for number in range(40))
    return showcase.Outcome(
        ("?",) * 30,
        tuple(row.answer if number < right else "?" for number, row in enumerate(text.held_out())),
        unrelated,
        tuple(answer if number < kept else "?" for number, answer in enumerate(unrelated)),
    )


def test_outcome_counts_right_and_kept_answers():
    found = outcome(right=28, kept=37)
    assert (found.right_before, found.right, found.kept) == (0, 28, 37)
    assert "Right answers to 30 such prompts: 0 before, 28 after." in found.text()
    assert "Answers to 40 prompts about other things: 37 are as before." in found.text()
    assert found.text().count("before: ?") == 5


def test_an_adapter_without_effect_changes_no_answer(tmp_path):
    peft = pytest.importorskip("peft")
    model = AutoModelForCausalLM.from_pretrained(text.model_folder()).float()
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    peft.get_peft_model(model, config).save_pretrained(tmp_path)
    found = showcase.measure(tmp_path)
    assert (found.right_before, found.right, found.kept) == (0, 0, 40)


def test_batches_depend_on_the_seed_alone(tokenizer):
    first, again, other = (next(batches(tokenizer, seed))[0].numpy() for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
