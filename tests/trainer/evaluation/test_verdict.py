"""The verdict on runs of every kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lora_crucible.config import DatasetFacts, ModelFacts, ResolvedConfig, parse_config
from lora_crucible.evaluation.error_signs import learning_at_the_end
from lora_crucible.evaluation.evidence import Evidence
from lora_crucible.evaluation.image_metrics import ImageMeasures
from lora_crucible.evaluation.validation import Round
from lora_crucible.evaluation.verdict import judge
from lora_crucible.monitoring.loss_swings import Swing
from lora_crucible.planning.resolve import resolve


def config(**values) -> ResolvedConfig:
    return resolve(
        parse_config({"max_train_steps": 400, "learning_rate": 1e-4, **values}),
        DatasetFacts(examples=20, bucket_sizes=(20,)),
        ModelFacts("sd15", native_resolution=512, sample_cfg=6.0, prediction_type="epsilon"),
    ).values


def rounds(held_out: list[float], training: list[float] | None = None) -> list[Round]:
    """At equal distances in a training at a constant rate."""
    errors = training or held_out
    return [
        Round(number * 100, float(number), one, two)
        for number, (one, two) in enumerate(zip(errors, held_out, strict=True))
    ]


SETTLED = [1.0, 0.6, 0.45, 0.41, 0.4]
MODEST = ImageMeasures(
    effect=0.8, drift=0.2, variety=0.8, likeness=0.7, base_likeness=0.4, nearest="a.png", without_word=0.2,
    word_elsewhere=0.5,
)  # fmt: skip


def verdict(errors: list[float], training: list[float] | None = None, **more):
    return judge(
        Evidence(rounds(errors, training), more.pop("config", config()), 20, more.pop("usual_rate", 3e-4), **more)
    )


def test_an_error_that_fell_and_settled_is_good():
    found = verdict(SETTLED, measures=MODEST)
    assert found.word == "good"
    assert "fell by 60.0% and has settled" in found.reasons[0]
    assert found.lines()[0].startswith("Verdict: GOOD.")


def test_a_little_worse_than_the_best_is_still_good():
    assert verdict([1.0, 0.5, 0.4, 0.405, 0.41]).word == "good"


def test_an_error_that_rises_again_is_too_much_and_the_best_step_is_named():
    found = verdict([1.0, 0.5, 0.4, 0.5, 0.6])
    assert found.word == "too much"
    assert "lowest after step 200 and ended 50% higher" in found.reasons[0]
    assert "Train for 200 steps" in found.advice[0]
    assert any("lora_dropout" in advice for advice in found.advice)


def test_worse_than_before_the_training_is_a_rate_that_is_too_high():
    found = verdict([1.0, 0.8, 1.5, 2.0, 2.0])
    assert found.word == "too much"
    assert found.advice == ("Lower learning_rate to 2.5e-05.",)


def test_an_error_that_still_falls_is_too_little():
    found = verdict([1.0, 0.9, 0.8, 0.7, 0.6])
    assert found.word == "too little"
    assert "still falling" in found.reasons[0]
    assert "1600 steps" in found.advice[0]


def test_nothing_learned_at_all_is_too_little():
    found = verdict([1.0, 1.0, 0.999, 0.999, 0.999])
    assert found.word == "too little"
    assert "0.0003" in found.advice[0]


def test_trained_images_learned_and_others_not_is_too_much():
    found = verdict([1.0, 1.0, 0.999, 1.0, 1.0], [1.0, 0.8, 0.6, 0.5, 0.4])
    assert found.word == "too much"
    assert any("images" in advice for advice in found.advice)


def test_a_run_that_was_stopped_early_was_not_too_short():
    falling_till_it_stopped = [1.0, 0.7, 0.5, 0.4]
    assert verdict(falling_till_it_stopped).word == "too little"
    assert verdict(falling_till_it_stopped, stopped_early=True).word == "good"


def test_a_cancelled_run_is_not_called_too_little():
    falling = [1.0, 0.9, 0.8]
    assert verdict(falling, complete=False).word == "none"
    assert "stopped before its end" in verdict(falling, complete=False).lines()[0]
    assert verdict([1.0, 0.5, 0.9], complete=False).word == "too much"


@pytest.mark.parametrize(
    ("change", "word", "said"),
    [
        ({}, "good", "settled"),
        ({"effect": 0.1}, "too little", "changed by only 0.10"),
        ({"variety": 0.2}, "too much", "different seeds look alike"),
        ({"likeness": 0.97}, "too much", "copies of training images, such as a.png"),
        ({"likeness": 0.97, "base_likeness": 0.9}, "good", "settled"),  # such images are alike untrained
        ({"drift": 1.3}, "too much", "unrelated prompts"),
    ],
)
def test_pictures_have_their_say(change: dict[str, float], word: str, said: str):
    found = verdict(SETTLED, measures=replace(MODEST, **change))
    assert found.word == word
    assert said in " ".join(found.reasons)


def test_a_trigger_word_that_is_not_needed_is_said():
    found = verdict(SETTLED, measures=replace(MODEST, without_word=0.6))
    assert found.word == "good"
    assert "without its trigger word" in found.advice[0]


def test_without_validation_images_it_says_so_and_judges_the_rest():
    training = [Round(step * 100, float(step), error) for step, error in enumerate(SETTLED)]
    found = judge(Evidence(training, config(), 20, 1e-4, measures=MODEST))
    assert found.word == "good"
    assert "training images" in found.reasons[0]
    assert "No image was held out for validation" in found.reasons[-1]
    copied = judge(Evidence(training, config(), 20, 1e-4, measures=replace(MODEST, variety=0.1)))
    assert copied.word == "too much"


def test_nothing_measured_gives_no_verdict():
    assert judge(Evidence([], config(), 20, 1e-4)).word == "none"


def test_learning_at_the_end_counts_learning_rates_and_not_steps():
    assert learning_at_the_end(rounds([1.0, 0.9, 0.8, 0.7, 0.6])) == pytest.approx(1)
    assert learning_at_the_end(rounds(SETTLED)) == pytest.approx((0.45 - 0.4) / 2 / (0.6 / 4))
    # The last steps had hardly any rate left, so that they stood still says nothing.
    annealed = [Round(0, 0.0, 1.0), Round(100, 0.5, 0.8), Round(200, 0.99, 0.6), Round(400, 1.0, 0.6)]
    assert learning_at_the_end(annealed) == pytest.approx(1)
    assert learning_at_the_end(rounds([1.0, 1.1])) == 0


SWING = Swing(low=80, high=120, rise=0.4)


def test_a_swing_is_told_with_every_verdict_and_its_remedy_comes_first():
    for errors in (SETTLED, [1.0, 0.9, 0.8, 0.7, 0.6], [1.0, 1.0, 1.0, 1.0, 0.999]):
        found = verdict(errors, swing=SWING)
        assert found.word == verdict(errors).word
        assert found.reasons[-1].startswith("The error swung: from step 80 to 120 it rose by 40%")
        assert found.advice[0] == "Lower learning_rate to 5e-05."
        assert not any("aise learning_rate" in advice for advice in found.advice)
    assert any("aise learning_rate" in advice for advice in verdict([1.0, 1.0, 1.0, 1.0, 0.999]).advice)


def test_two_remedies_for_the_learning_rate_do_not_contradict():
    advice = verdict([1.0, 0.8, 1.5, 2.0, 2.0], swing=SWING).advice
    assert [one for one in advice if "learning_rate" in one] == ["Lower learning_rate to 2.5e-05."]


def test_small_steps_that_swing_are_to_be_accumulated():
    small = config(batch_size=1, gradient_accumulation_steps=1)
    assert verdict(SETTLED, config=small, swing=SWING).advice[0].startswith("Set gradient_accumulation_steps to 4")


def test_a_swing_needs_no_measurement():
    found = judge(Evidence([], config(), 20, 1e-4, swing=SWING))
    assert "swung" in found.lines()[0]
    assert "Lower learning_rate" in found.lines()[1]


def test_a_usual_learning_rate_that_teaches_nothing_is_not_raised():
    nothing = [1.0, 1.0, 0.999, 0.999, 0.999]
    assert verdict(nothing, usual_rate=2e-4).advice == ("Train for longer, or raise learning_rate to 0.0002.",)
    attention = config(lora_rank=4, target_modules="attention")
    advice = verdict(nothing, config=attention, usual_rate=1e-4).advice
    assert advice[0] == "Raise lora_rank to 8, or set target_modules to attention_and_feed_forward."
    assert "captions" in advice[1]
