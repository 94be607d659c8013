"""Images that stand out among the training images."""

from __future__ import annotations

import random

import pytest
import torch
from lora_crucible.models.examples import CachedExample, RowLosses
from lora_crucible.monitoring.hard_examples import HARD_WEIGHT, HardExamples
from lora_crucible.training.loop import RowResult

NAMES = [f"{number:02}.png" for number in range(12)]


def watched(of: dict[str, tuple[float, float]], shows: int = 40, names: list[str] = NAMES) -> HardExamples:
    """Return a watch over errors that fall as images are learned and differ up to a hundredfold with the noise level.

    Errors of images in `of` are multiplied by its two numbers, the first at the start, the second at the end.
    """
    draw = random.Random(0)
    watch = HardExamples(names)
    for show in range(shows):
        for name in names:
            timestep = draw.random()
            usual = 10 ** (-2 * timestep) * (0.3 + 0.7 * 0.9**show) * draw.uniform(0.7, 1.4)
            first, last = of.get(name, (1.0, 1.0))
            factor = first + (last - first) * show / shows
            watch.add([RowResult(name, usual * factor, timestep)])
    return watch


def test_images_that_are_alike_are_not_mentioned():
    watch = watched({})
    assert watch.hard() == []
    assert watch.memorised() == []
    assert watch.lines(False, "image") == []
    assert max(watch.scores().values()) < 1.5


def test_an_image_that_stays_hard_is_named_with_how_much():
    watch = watched({"07.png": (1.5, 4.0)})
    assert watch.hard() == ["07.png"]
    assert 2.5 < watch.scores()["07.png"] < 4.5
    (line,) = watch.lines(False, "image")
    assert "07.png" in line
    assert "caption" in line


def test_an_image_that_was_learned_before_the_others_is_named():
    watch = watched({"03.png": (1.0, 0.1)})
    assert watch.memorised() == ["03.png"]
    assert watch.hard() == []
    assert "03.png" in watch.lines(False, "image")[0]


def test_an_image_that_is_easy_from_the_start_was_not_memorised():
    assert watched({"03.png": (0.3, 0.3)}).memorised() == []


def test_nothing_is_said_of_images_that_were_seldom_shown():
    assert watched({"07.png": (5.0, 5.0)}, shows=10).scores() == {}


def test_other_images_and_errors_that_are_no_numbers_do_not_count():
    watch = watched({}, names=NAMES[:5])
    before = watch.scores()
    watch.add([RowResult("regularization.png", 9.0, 0.5), RowResult("00.png", float("nan"), 0.5)])
    assert watch.scores() == before


def test_hard_images_count_half_while_they_are_hard():
    watch = watched({"07.png": (3.0, 3.0)})
    rows = [CachedExample(name, "all", None) for name in ("06.png", "07.png")]
    losses = RowLosses(torch.tensor([2.0, 2.0]), torch.tensor([1.0, 1.0]), torch.zeros(2))
    weighted = watch.weighted(losses, rows)
    assert weighted.values.tolist() == [2.0, 2.0 * HARD_WEIGHT]
    assert weighted.errors.tolist() == [1.0, 1.0]  # reported errors are not weighted
    for _ in range(16):
        watch.add([RowResult("07.png", 0.003, 0.99), RowResult("06.png", 0.003, 0.99)])
    assert watch.weighted(losses, rows).values.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(("factor", "hard"), [(1.0, ["row 3"]), (0.001, [])])
def test_rows_that_are_nearly_certain_are_not_told_apart(factor, hard):
    watch = HardExamples([f"row {number}" for number in range(8)])
    for _ in range(20):
        watch.add([RowResult(f"row {number}", factor * (9.0 if number == 3 else 1.0), None) for number in range(8)])
    assert watch.hard() == hard
    assert all("Check whether the answer is right" in line for line in watch.lines(False, "row"))
