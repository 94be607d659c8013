"""Regularization rows: the base model's own answers to other prompts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lora_crucible.config import parse_config
from lora_crucible.data.cache import TensorCache
from lora_crucible.errors import CrucibleError
from lora_crucible.models.language.model import Answer
from lora_crucible.planning.plan import Plan
from lora_crucible.training.plan import plan_run
from lora_crucible.training.regularization import with_own_answers
from toy import Numbers, Toy
from toy_language import LETTERS, STOP, Characters, Sayings, ToyLanguage

SETTINGS = {
    "task_type": "text-generation",
    "regularization_rows": True,
    "max_new_tokens": 8,
    "batch_size": 2,
    "max_train_steps": 10,
}


def planned(toy=None, dataset=None, **values) -> Plan:
    return plan_run(toy or ToyLanguage(), dataset or Sayings(), parse_config({**SETTINGS, **values})).plan


def answered(toy: ToyLanguage, plan: Plan, cache: TensorCache | None = None, seen: list | None = None):
    def progress(done, total, what) -> None:
        if seen is not None:
            seen.append((done, total, what))

    with toy.session("fp32"):
        return with_own_answers(toy, plan, toy.identity(), cache or TensorCache(None), progress)


def test_the_plan_counts_a_row_for_each_prompt():
    without, plan = planned(regularization_rows=False), planned()
    assert len(without.examples) == 8
    assert len(plan.examples) == 8 + 26
    assert len(plan.dataset.regularization_names) == 26
    assert without.dataset.regularization_names == ()


def test_they_get_the_answers_of_the_base_model_when_the_run_is_prepared():
    toy, seen = ToyLanguage(), []
    dataset, examples, (note,) = answered(toy, planned(toy), seen=seen)
    assert [one.turns[1].text for one in dataset.regularization] == [letter * 2 for letter in LETTERS]
    assert [one.turns[0].text for one in dataset.regularization] == [f"tell {letter}" for letter in LETTERS]
    assert len(examples) == 34
    assert note == "Regularization: 26 answers of the base model to other prompts were trained along."
    assert seen[-1] == (26, 26, "regularization rows")


def test_answers_are_found_in_the_cache_unless_weights_or_lengths_differ(tmp_path):
    first = ToyLanguage()
    answered(first, planned(first), TensorCache(tmp_path))
    assert first.asked == 26
    again = ToyLanguage()
    dataset, _, _ = answered(again, planned(again), TensorCache(tmp_path))
    assert again.asked == 0
    assert dataset.regularization[0].turns[1].text == "aa"
    other = ToyLanguage()
    other.identity = lambda: "other weights"
    answered(other, planned(other), TensorCache(tmp_path))
    assert other.asked == 26
    longer = ToyLanguage()
    answered(longer, planned(longer, max_new_tokens=9), TensorCache(tmp_path))
    assert longer.asked == 26


def test_where_an_answer_was_cut_the_stop_token_is_not_trained(monkeypatch):
    toy = ToyLanguage()
    monkeypatch.setattr(
        toy, "answers", lambda prompts, *_: [Answer("aaa", (97,) * 3, len(prompts) != 8)] * len(prompts)
    )
    _, examples, (note,) = answered(toy, planned(toy))
    whole, cut = examples[-1].rendered, examples[8].rendered
    assert whole.tokens[-1] == cut.tokens[-1] == STOP
    assert whole.trained[-1]
    assert not cut.trained[-1]
    assert cut.trained[-4:-1] == (True, True, True)
    assert "24 of them were cut after 8 tokens (max_new_tokens)" in note


def test_empty_answers_are_left_out_and_nothing_else_is_an_error(monkeypatch):
    toy = ToyLanguage()
    answers = toy.answers
    monkeypatch.setattr(
        toy, "answers", lambda *asked: [replace(one, text="") if one.text == "aa" else one for one in answers(*asked)]
    )
    dataset, examples, _ = answered(toy, planned(toy))
    assert len(dataset.regularization) == 25
    assert len(examples) == 8 + 25
    monkeypatch.setattr(toy, "answers", lambda prompts, *_: [Answer("", (), True)] * len(prompts))
    with pytest.raises(CrucibleError, match=r"empty answer to each of the 26 prompts .* reg_data_dir"):
        answered(toy, planned(toy))


class Texts(Characters):
    def prompt(self, turns):
        raise CrucibleError("This tokenizer has no chat template.")


def test_without_a_template_they_are_texts(monkeypatch):
    toy = ToyLanguage()
    toy.renderer = Texts()
    monkeypatch.setattr(toy, "answers", lambda prompts, *_: [Answer(" on", (32, 111, 110), True)] * len(prompts))
    dataset = Sayings(rows=tuple(replace(one, turns=(), text="say A") for one in Sayings().rows[:2]), held_out=())
    plan = planned(toy, dataset)
    found, _, _ = answered(toy, plan)
    assert [one.text for one in found.regularization[:2]] == ["tell a on", "tell b on"]
    assert not any(one.turns for one in found.regularization)


def test_with_too_little_memory_prompts_are_answered_one_by_one(monkeypatch):
    toy = ToyLanguage()
    answers = toy.answers

    def alone(prompts, *more):
        if len(prompts) > 1:
            raise MemoryError
        return answers(prompts, *more)

    monkeypatch.setattr(toy, "answers", alone)
    dataset, _, _ = answered(toy, planned(toy))
    assert len(dataset.regularization) == 26


def test_other_models_and_runs_without_the_switch_are_left_alone():
    plan = plan_run(Toy(), Numbers(), parse_config(SETTINGS)).plan
    assert with_own_answers(Toy(), plan, "", TensorCache(None), print) == (plan.dataset, plan.examples, [])
    toy = ToyLanguage()
    without = planned(toy, regularization_rows=False)
    assert answered(toy, without) == (without.dataset, without.examples, [])
    assert toy.asked == 0
