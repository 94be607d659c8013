"""Steps with NaN or infinite values, or with values far above the usual."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.events.step import Gradients, RowResult
from lora_crucible.monitoring.anomalies import ENOUGH, MOST_IN_A_ROW, MOST_RETURNS, WINDOW, AnomalyDetector

GOOD = 0.5


@pytest.fixture
def trouble(complete):
    def make(precision: str = "fp32", scale: float = 1.0, **values) -> AnomalyDetector:
        return AnomalyDetector(complete(**{"learning_rate": 2e-4} | values), precision, lambda: scale, "image")

    return make


def gradients(norm: float = 0.1, names: str = "a", losses: tuple[float, ...] = (), error: float = GOOD) -> Gradients:
    """Return the gradients of a step on images that are named by one letter each."""
    losses = losses or (GOOD,) * len(names)
    rows = tuple(RowResult(f"{name}.png", error, 0.5) for name in names)
    return Gradients(sum(losses) / len(losses), losses, rows, norm)


def broken(names: str = "a", losses: tuple[float, ...] = (math.nan,)) -> Gradients:
    return gradients(math.nan, names, losses)


def used_to(trouble: AnomalyDetector, steps: int = ENOUGH, names: str = "z") -> AnomalyDetector:
    for step in range(steps):
        assert trouble.judge(step + 1, gradients(names=names)) == "go on"
    return trouble


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_goes_back_and_names_its_images(trouble, value):
    watch = trouble()
    assert watch.judge(12, broken("abc", (GOOD, value, GOOD))) == "go back"
    assert "loss of step 12" in watch.lines()[0]
    assert "with b.png." in watch.lines()[0]
    assert "went back to its last good state 1 time" in watch.lines()[0]


def test_gradients_that_are_no_numbers_go_back_and_name_all_images(trouble):
    watch = trouble()
    assert watch.judge(12, gradients(math.inf, "ab")) == "go back"
    assert "gradient of step 12 was inf with a.png, b.png" in watch.lines()[0]


def test_learning_rate_is_halved_with_a_stop_at_5e_5(trouble):
    def rates(watch: AnomalyDetector, start: float) -> list[float]:
        found = []
        for step in range(MOST_RETURNS):
            watch.judge(step + 1, broken())
            found.append(start * watch.slowdown)
        return found

    assert trouble().slowdown == 1
    assert rates(trouble(), 2e-4) == pytest.approx([1e-4, 5e-5, 2.5e-5, 1.25e-5, 6.25e-6])
    assert rates(trouble(learning_rate=8e-5), 8e-5)[:2] == pytest.approx([5e-5, 2.5e-5])
    assert rates(trouble(learning_rate=4e-5), 4e-5)[:2] == pytest.approx([2e-5, 1e-5])


def test_scaled_gradients_may_overflow_while_the_scale_is_high(trouble):
    assert trouble("fp16", scale=65536.0).judge(1, gradients(math.inf)) == "go on"
    assert trouble("fp16", scale=1.0).judge(1, gradients(math.inf)) == "go back"
    assert trouble("fp16", scale=65536.0).judge(1, broken()) == "go back"


def stop(watch: AnomalyDetector, what: Gradients, good_step: int = 7) -> str:
    """Return the error that stops a run whose steps never stop failing."""
    for step in range(MOST_RETURNS):
        watch.judge(step + 1, what)
        watch.raise_when_hopeless(good_step, Path("my.safetensors"))
    watch.judge(MOST_RETURNS + 1, what)
    with pytest.raises(CrucibleError) as error:
        watch.raise_when_hopeless(good_step, Path("my.safetensors"))
    return str(error.value)


def test_after_many_times_it_stops_and_says_what_to_do(trouble):
    text = stop(trouble(), broken("ab", (math.nan, math.nan)))
    for fact in (
        "step 6 was nan with a.png, b.png",
        "6th time",
        "0.0002 to 6.25e-06",
        "0.5",
        "up to step 7 is my.safe",
    ):
        assert fact in text
    assert text.endswith("Set learning_rate to 2e-05.")
    assert stop(trouble("bf16"), broken()).endswith("Set learning_rate to 2e-05, or mixed_precision to fp32.")
    assert "mixed_precision to bf16" in stop(trouble("fp16"), broken())
    assert "No step was done before" in stop(trouble(), broken(), good_step=0)


def test_one_bad_image_among_good_ones_is_what_to_look_at(trouble):
    text = stop(trouble("fp16"), broken("abc", (GOOD, GOOD, math.inf)))
    assert "It was c.png every time" in text
    assert "It was" not in stop(trouble(), broken("a"))  # an only image cannot be compared with others


def test_a_spike_is_skipped_and_told(trouble):
    watch = used_to(trouble())
    assert watch.judge(99, gradients(norm=4.0, names="ab")) == "skip"
    assert watch.judge(100, gradients()) == "go on"
    assert "step 99 (gradient 40 times the usual, with a.png, b.png)" in watch.lines()[0]


def test_an_error_far_beyond_the_usual_is_a_spike_too(trouble):
    watch = used_to(trouble(), ENOUGH + 1)  # the first error has nothing to be compared with
    assert watch.judge(99, gradients(error=30 * GOOD)) == "skip"
    assert "error 30 times" in watch.lines()[0]


def test_nothing_is_a_spike_before_there_is_a_usual(trouble):
    watch = used_to(trouble(), ENOUGH - 1)
    assert watch.judge(99, gradients(norm=1e4)) == "go on"


def test_no_image_misses_two_turns(trouble):
    """Rare and hard images should be learned too."""
    watch = used_to(trouble())
    found = [watch.judge(step, gradients(norm=4.0 if step % 3 == 0 else 0.1, names="a" if step % 3 == 0 else "z"))
             for step in range(99, 111)]  # fmt: skip
    assert found == ["skip", "go on", "go on", "go on", "go on", "go on"] * 2


def test_what_stays_is_the_new_usual(trouble):
    watch = used_to(trouble())
    found = [watch.judge(100 + step, gradients(4.0, names=chr(97 + step))) for step in range(20)]
    assert found == ["skip"] * MOST_IN_A_ROW + ["go on"] * (20 - MOST_IN_A_ROW)


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0, 1.5])
def test_wild_but_ordinary_numbers_are_no_spikes(trouble, spread):
    """Single images at different noise levels have gradients and errors that differ up to a hundredfold."""
    draw = torch.Generator().manual_seed(0)
    watch = trouble()
    for step in range(5000):
        norm, error = (spread * torch.randn(2, generator=draw)).exp().tolist()
        assert watch.judge(step + 1, gradients(norm, names=chr(97 + step % 20), error=error)) == "go on"


def test_a_restored_watch_judges_alike(trouble):
    draw = torch.Generator().manual_seed(0)
    norms = (0.5 * torch.randn(3 * WINDOW, generator=draw)).exp()
    norms[::17] *= 1e4
    steps = [gradients(float(norm), names=chr(97 + number % 20)) for number, norm in enumerate(norms)]
    whole, first, second = trouble(), trouble(), trouble()
    found = [whole.judge(number + 1, step) for number, step in enumerate(steps)]
    for number, step in enumerate(steps[:160]):
        first.judge(number + 1, step)
    second.restore(first.state())
    assert second.lines() == first.lines()
    rest = [second.judge(number + 161, step) for number, step in enumerate(steps[160:])]
    assert rest == found[160:]
    assert {"skip", "go on"} == set(rest)
    assert second.lines() == whole.lines()


def test_a_good_run_has_nothing_to_tell(trouble):
    assert used_to(trouble()).lines() == []
