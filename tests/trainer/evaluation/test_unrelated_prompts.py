"""The choice of prompts about other things."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from lora_crucible.config import TrainingConfig, parse_config
from lora_crucible.data.base import Dataset
from lora_crucible.data.text.rows import Turn
from lora_crucible.evaluation.unrelated_prompts import general_prompts, measured_prompts, trained_prompts


@dataclass
class Prompts(Dataset):
    unrelated_prompts: tuple[str, ...] = ()
    regularization_prompts: tuple[tuple[Turn, ...], ...] = ()

    fingerprint = ""
    training_names = ()

    def examples(self, resolution):
        return []


Prompts.__abstractmethods__ = frozenset()


def config(regularization_rows: bool) -> TrainingConfig:
    return parse_config({"task_type": "text-generation", "regularization_rows": regularization_rows})


def asked(*texts: str) -> tuple[tuple[Turn, ...], ...]:
    return tuple((Turn("user", text),) for text in texts)


def numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name} {number}" for number in range(count))


def test_the_general_prompts_are_a_hundred_different_ones_in_several_languages():
    prompts = general_prompts()
    assert len(prompts) == len(set(prompts)) == 100
    assert all(turn.text == turn.text.strip() != "" for prompt in prompts for turn in prompt)
    measured = measured_prompts(Prompts(), config(False))
    assert any(not prompt[0].text.isascii() for prompt in measured)


def test_general_prompts_are_measured_the_same_with_and_without_training_the_others():
    measured = measured_prompts(Prompts(), config(False))
    assert len(measured) == 40
    assert trained_prompts(Prompts(), config(False)) == ()
    assert measured_prompts(Prompts(), config(True)) == measured
    assert len(trained_prompts(Prompts(), config(True))) == 60


@pytest.mark.parametrize("count", [1, 2, 5, 40, 100, 300])
def test_prompts_of_the_user_are_split_and_none_is_both(count):
    dataset = Prompts(regularization_prompts=asked(*numbered("mine", count)))
    measured, trained = measured_prompts(dataset, config(True)), trained_prompts(dataset, config(True))
    assert not set(measured) & set(trained)
    assert set(measured) | set(trained) == set(dataset.regularization_prompts)
    assert 1 <= len(measured) <= 40
    assert len(measured_prompts(dataset, config(False))) == min(40, count)


def test_prompts_to_measure_leave_all_others_to_train():
    dataset = Prompts(numbered("unrelated", 40), asked(*numbered("kept", 60)))
    assert measured_prompts(dataset, config(True)) == asked(*dataset.unrelated_prompts)
    assert trained_prompts(dataset, config(True)) == dataset.regularization_prompts
    assert measured_prompts(dataset, config(False)) == asked(*dataset.unrelated_prompts)


def test_a_prompt_that_is_measured_is_not_trained():
    dataset = Prompts(("a", "b"), asked("b", "c"))
    assert trained_prompts(dataset, config(True)) == asked("c")
