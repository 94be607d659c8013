"""The verdict on runs of language models: every combination of what was learned and what was forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lora_crucible.config import DatasetFacts, ModelFacts, ResolvedConfig, parse_config
from lora_crucible.evaluation.evidence import Evidence
from lora_crucible.evaluation.text_metrics import OwnAnswers, TextMeasures
from lora_crucible.evaluation.validation import Round
from lora_crucible.evaluation.verdict import Verdict, judge
from lora_crucible.monitoring.loss_swings import Swing
from lora_crucible.planning.resolve import resolve

SETTLED = [2.0, 1.2, 0.9, 0.82, 0.8]
FALLING = [2.0, 1.8, 1.6, 1.4, 1.2]
PAST_BEST = [2.0, 1.0, 0.8, 1.0, 1.2]
OWN = OwnAnswers(
    count=8, copies=(), could_end=8, ended=8, base_ended=8, expected_different=8, different=8, base_different=8,
    variety=0.5, base_variety=0.6,
)  # fmt: skip
FORGETS_NOTHING = TextMeasures(effect=0.5, drift=0.01, kept=40, unrelated=40, compared_tokens=32, own=OWN)


def config(**values) -> ResolvedConfig:
    return resolve(
        parse_config(
            {
                "task_type": "text-generation",
                "max_train_steps": 400,
                "learning_rate": 1e-4,
                "lora_dropout": 0.1,
                **values,
            }
        ),
        DatasetFacts(200, bucket_sizes=(200,)),
        ModelFacts("language"),
    ).values


def verdict(errors: list[float], measures: TextMeasures | None = FORGETS_NOTHING, **more) -> Verdict:
    rounds = [Round(number * 100, float(number), error, error) for number, error in enumerate(errors)]
    settings = more.pop("config", config())
    return judge(
        Evidence(
            rounds, settings, 200, 1e-4, measures=measures, unit="row", has_captions=False, makes_texts=True, **more
        )
    )


def kept(count: int) -> TextMeasures:
    return replace(FORGETS_NOTHING, kept=count)


def test_learned_settled_and_nothing_forgotten_is_good():
    found = verdict(SETTLED)
    assert found.word == "good"
    assert "forget" not in " ".join(found.reasons)
    assert found.advice[0].startswith("Use it.")


@pytest.mark.parametrize("count", [38, 39])
def test_good_needs_95_percent_and_still_says_what_was_forgotten(count: int):
    found = verdict(SETTLED, kept(count))
    assert found.word == "good"
    assert f"It forgets: {40 - count} of 40 answers to unrelated prompts changed ({count} stayed the same)" in str(
        found
    )
    assert any("regularization_rows" in advice for advice in found.advice)


@pytest.mark.parametrize("count", [27, 30, 37])
def test_forgetting_some_of_it_is_said_with_all_three_remedies(count: int):
    found = verdict(SETTLED, kept(count))
    assert found.word == "forgets"
    assert found.lines()[0].startswith("Verdict: FORGETS. The error on validation rows fell by 60.0% and has settled.")
    assert found.advice[0].startswith("Set regularization_rows to true")
    assert found.advice[1] == "Train for 200 steps, or lower learning_rate to 5e-05."


@pytest.mark.parametrize("count", [5, 20, 25])
def test_forgetting_a_third_is_too_much_only_without_regularization_rows(count: int):
    found = verdict(SETTLED, kept(count))
    assert found.word == "too much"
    assert found.advice[0].startswith("Set regularization_rows to true")
    for protected in ({"regularization_rows": True}, {"reg_data_dir": "rows"}):
        assert verdict(SETTLED, kept(count), config=config(**protected)).word == "forgets"


@pytest.mark.parametrize("protected", [{"regularization_rows": True}, {"reg_data_dir": "rows"}])
def test_with_regularization_rows_it_is_too_much_if_nearly_all_answers_say_other_things(protected: dict):
    for count, drift, word in ((0, 0.1, "forgets"), (4, 0.6, "too much"), (5, 0.6, "forgets")):
        found = verdict(SETTLED, replace(kept(count), drift=drift), config=config(**protected))
        assert found.word == word, (count, drift)
        assert f"({count} stayed the same)" in " ".join(found.reasons)


@pytest.mark.parametrize("count", [0, 4])
@pytest.mark.parametrize("errors", [SETTLED, PAST_BEST, [2.0, 2.0, 2.0, 2.0, 2.0]])
def test_forgetting_nearly_all_is_too_much_whatever_the_errors_say(errors: list[float], count: int):
    found = verdict(errors, kept(count))
    assert found.word == "too much"
    assert f"({count} stayed the same)" in " ".join(found.reasons)
    assert any("regularization_rows" in advice for advice in found.advice)
    assert any("lower learning_rate" in advice for advice in found.advice)


def test_forgetting_nearly_all_before_enough_is_learned_is_not_cured_by_less_training():
    found = verdict(FALLING, kept(0))
    assert found.word == "too much"
    assert found.reasons[0].startswith("It forgets: 40 of 40")
    assert "still falling" in found.reasons[1]
    assert len(found.advice) == 1
    assert found.advice[0].startswith("Set regularization_rows to true")


def test_too_little_that_forgets_already_gets_rows_and_no_higher_rate():
    found = verdict(FALLING, kept(30))
    assert found.word == "too little"
    assert "It forgets: 10 of 40" in " ".join(found.reasons)
    assert found.advice[0].startswith("Set regularization_rows to true")
    assert found.advice[1] == "Train for 1600 steps."
    assert len(found.advice) == 2


def test_too_little_that_forgets_nothing_may_raise_the_rate():
    found = verdict(FALLING)
    assert found.word == "too little"
    assert "raise learning_rate" in found.advice[0]
    assert "forget" not in " ".join(found.reasons)


def test_past_its_best_the_best_step_is_the_advice_and_not_half_of_the_steps():
    found = verdict(PAST_BEST, kept(20))
    assert found.word == "too much"
    assert found.advice[0] == "Train for 200 steps, or lower learning_rate to 5e-05."
    assert [advice for advice in found.advice if "Train for" in advice] == [found.advice[0]]
    assert any("regularization_rows" in advice for advice in found.advice)


def test_with_regularization_rows_their_weight_is_raised():
    found = verdict(SETTLED, kept(20), config=config(regularization_rows=True, prior_loss_weight=2))
    assert found.advice[0] == "Raise prior_loss_weight to 4, or put more prompts into reg_data_dir."
    most = verdict(SETTLED, kept(20), config=config(regularization_rows=True, prior_loss_weight=10))
    assert most.advice[0] == "Put more prompts into reg_data_dir."


def test_an_effect_that_is_hardly_there_is_too_little():
    found = verdict(SETTLED, replace(FORGETS_NOTHING, effect=0.01))
    assert found.word == "too little"
    assert "moved by only 0.010 nats" in found.reasons[0]
    assert found.advice == ("Train for longer, or raise learning_rate to 0.0003.",)


def test_without_measures_it_is_never_called_good():
    found = verdict(SETTLED, None)
    assert found.word == "none"
    assert "Whether the model forgets was not measured" in found.reasons[1]
    assert found.advice == ("Set measure to always.",)
    assert verdict(FALLING, None).word == "too little"
    assert verdict(PAST_BEST, None).word == "too much"


def test_a_stopped_run_that_forgets_says_so():
    found = verdict(SETTLED, kept(30), complete=False)
    assert found.word == "none"
    assert "It forgets" in " ".join(found.reasons)
    assert found.advice[0].startswith("Set regularization_rows")


@pytest.mark.parametrize(
    ("change", "word", "said"),
    [
        ({}, "good", "settled"),
        ({"copies": ("a.jsonl, row 3",) * 2}, "good", "settled"),
        ({"copies": ("a.jsonl, row 3",) * 3}, "too much", "3 of 8 answers are copies of training answers to other"),
        ({"different": 2}, "too much", "Different prompts get the same answers: 2 different ones to 8 prompts"),
        ({"different": 2, "base_different": 2}, "good", "settled"),  # so does the base model
        ({"different": 2, "expected_different": 2}, "good", "settled"),  # as the rows want it
        ({"ended": 3}, "too much", "Only 3 of 8 answers ended by themselves, without the LoRA 8"),
        ({"ended": 3, "base_ended": 0}, "too little", "Only 3 of 8 answers ended by themselves."),
        ({"ended": 0, "could_end": 2}, "good", "settled"),  # too few to say anything
        ({"variety": 0.0}, "good", "settled"),  # one right answer to each prompt
    ],
)
def test_answers_have_their_say(change: dict, word: str, said: str):
    found = verdict(SETTLED, replace(FORGETS_NOTHING, own=replace(OWN, **change)))
    assert found.word == word
    assert said in " ".join(found.reasons)


def test_what_was_not_answered_says_nothing():
    assert verdict(SETTLED, replace(FORGETS_NOTHING, own=None)).word == "good"


def test_near_certainty_no_ratio_of_errors_counts():
    assert verdict([3.0, 0.2, 0.010, 0.012, 0.02]).word == "good"  # twice its best
    assert verdict([3.0, 0.5, 0.02, 0.04, 0.08]).word == "too much"
    assert verdict([0.20, 0.15, 0.1, 0.06, 0.03]).word == "good"  # it falls, but nothing is left to learn


def test_a_swing_is_told_with_what_is_forgotten():
    found = verdict(SETTLED, kept(30), swing=Swing(low=80, high=120, rise=0.4))
    assert found.word == "forgets"
    assert found.reasons[-1].startswith("The error swung")
    assert len([advice for advice in found.advice if "learning_rate" in advice]) == 1


def test_nothing_is_said_of_images():
    for errors in (SETTLED, FALLING, PAST_BEST, [2.0, 2.0, 2.0, 2.0, 2.0]):
        for measures in (None, FORGETS_NOTHING, kept(20), kept(0)):
            text = " ".join(verdict(errors, measures).lines())
            assert "image" not in text
            assert "caption" not in text
