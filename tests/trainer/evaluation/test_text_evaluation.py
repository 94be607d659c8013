"""Answers with and without the LoRA, on the toy language model."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.config import DatasetFacts, ModelFacts, parse_config
from lora_crucible.data.cache import TensorCache
from lora_crucible.evaluation import text_evaluation as module
from lora_crucible.evaluation.text_evaluation import TextEvaluation
from lora_crucible.evaluation.validation import Validation
from lora_crucible.planning.resolve import resolve
from toy_language import Sayings, ToyLanguage


def config(**values):
    values = {"task_type": "text-generation", "max_new_tokens": 8, "measure": "always", "batch_size": 2, **values}
    return resolve(parse_config(values), DatasetFacts(8, bucket_sizes=(8,)), ModelFacts("language")).values


@contextmanager
def evaluated(strength: float = 0.0, held_out: bool = True, **values):
    """Yield an evaluation of adapters that add a random matrix of this strength."""
    toy = ToyLanguage()
    dataset = toy.prepare_dataset(Sayings() if held_out else Sayings(held_out=()))
    rows = [
        toy.cache_inputs(part, TensorCache(None), 0.0, True, lambda *_: None)
        for part in dataset.measured_examples(4, 0)
    ]
    evaluation = TextEvaluation(toy, dataset, config(**values), Validation(toy, *rows, 2, 0))
    with toy.attached(AdapterSpec(4, 4.0, 0.5, "linear"), False) as adapters:
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in adapters.parameters():
                parameter.copy_(torch.randn(parameter.shape) * strength)
        yield toy, adapters, evaluation


def test_adapters_without_effect_change_nothing():
    with evaluated() as (_, adapters, evaluation):
        files = evaluation.measure(adapters, 1.0, None)
    measures = evaluation.measures
    assert measures.effect == measures.drift == 0
    assert measures.kept == measures.unrelated == 10
    assert measures.own.copies == ()
    assert measures.own.different == measures.own.base_different
    assert measures.own.variety == measures.own.base_variety
    assert list(files) == ["measures.md"]
    assert "before and after alike" in files["measures.md"]
    assert "after:" not in files["measures.md"].replace("before and after", "")


def test_strong_adapters_change_everything_and_are_left_as_they_were():
    with evaluated(1.0) as (_, adapters, evaluation):
        before = [parameter.clone() for parameter in adapters.parameters()]
        evaluation.measure(adapters, 1.0, None)
        assert all(map(torch.equal, before, adapters.parameters()))
    assert evaluation.measures.kept == 0
    assert evaluation.measures.changed == 10
    assert evaluation.measures.effect > 1
    assert evaluation.measures.drift > 1
    told = "\n".join(evaluation.lines(complete=True))
    assert "0 of 10 answers to unrelated prompts stayed the same (first 8 tokens)" in told


def test_the_effect_is_the_token_mean_on_held_out_rows():
    with evaluated(0.2) as (toy, adapters, evaluation), torch.no_grad():
        evaluation.measure(adapters, 1.0, None)
        states = torch.cat([row.inputs[0] for row in evaluation._rows])
        with adapters.without_dropout():
            after = toy.layers(states).log_softmax(-1)
            with adapters.without_effect():
                before = toy.layers(states).log_softmax(-1)
        expected = (before.exp() * (before - after)).sum(-1).mean()
    assert evaluation.measures.effect == pytest.approx(float(expected), rel=1e-4)


def test_without_held_out_rows_training_rows_are_answered():
    with evaluated(held_out=False) as (_, adapters, evaluation):
        files = evaluation.measure(adapters, 1.0, None)
    assert "train, row 0" in files["measures.md"]
    assert evaluation.measures.own.count == 8


def test_it_takes_no_longer_than_its_share_of_the_training(monkeypatch):
    """The clock goes on by a second with each look at it."""
    ticks = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(ticks))
    with evaluated(measure="auto", max_train_steps=100) as (_, adapters, evaluation):
        evaluation.measure(adapters, 2.0, None)
    assert evaluation.measures.unrelated == 8  # the first prompts are answered in any case
    assert evaluation.measures.own is None
    assert "Copies" not in "\n".join(evaluation.lines(True))


@pytest.mark.parametrize(
    ("values", "seconds", "said"),
    [
        ({"measure": "never"}, 100.0, "because measure is never"),
        ({"measure": "auto", "max_train_steps": 20}, 100.0, "fewer than 50 steps"),
        ({"measure": "auto", "max_train_steps": 100}, 1.0, "would have taken about 160 s after a training of 1 s"),
    ],
)
def test_what_is_not_measured_is_said(values, seconds, said):
    with evaluated(**values) as (toy, adapters, evaluation):
        assert evaluation.measure(adapters, seconds, 0.5) == {}
    assert toy.asked == 0
    assert evaluation.measures is None
    assert said in evaluation.lines(True)[0]
    assert evaluation.lines(complete=False) == []


def test_with_too_little_memory_fewer_are_answered_at_once(monkeypatch):
    with evaluated() as (toy, adapters, evaluation):
        answers, most = toy.answers, []

        def of_three_at_most(prompts, *more):
            most.append(len(prompts))
            if len(prompts) > 3:
                raise MemoryError
            return answers(prompts, *more)

        monkeypatch.setattr(toy, "answers", of_three_at_most)
        evaluation.measure(adapters, 1.0, None)
        assert evaluation.measures.unrelated == 10
        assert most[:3] == [8, 4, 2]


def test_no_memory_at_all_is_said(monkeypatch):
    def none(*_):
        raise MemoryError

    with evaluated() as (toy, adapters, evaluation):
        monkeypatch.setattr(toy, "answers", none)
        assert evaluation.measure(adapters, 1.0, None) == {}
    assert "not enough memory to write them" in evaluation.lines(True)[0]


def test_an_error_is_told_with_its_perplexity():
    with evaluated() as (_, _, evaluation):
        assert evaluation.error_text(2.0) == "2.0000 (perplexity 7.39)"
        assert "inf" in evaluation.error_text(1e4)
        assert "nan" in evaluation.error_text(float("nan"))
