"""Error curves that fall, stay level and swing, with the noise of single steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from lora_crucible.events.step import RowResult, errors_by_range
from lora_crucible.monitoring.loss_swings import STEPS_TO_JUDGE, find_swing


def steps(level: Callable[[float], float], count: int = 400, images: int = 4, spread: float = 0.4, seed: int = 0):
    """Return errors by range whose true level is a function of the progress of the run, from 0 to 1.

    As with a model that predicts noise, they are many times larger at one end of the noise schedule.
    """
    draw = torch.Generator().manual_seed(seed)
    found = []
    for step in range(count):
        noise = torch.rand(images, generator=draw).tolist()
        chance = (spread * torch.randn(images, generator=draw)).exp().tolist()
        rows = [
            RowResult("a.png", level(step / count) * math.exp(-4 * share) * times, share)
            for share, times in zip(noise, chance, strict=True)
        ]
        found.append(errors_by_range(rows))
    return found


FALLING = [
    lambda share: 0.2,
    lambda share: 0.2 * (0.3 + 0.7 * math.exp(-5 * share)),
    lambda share: 0.2 - 0.002 * share,
]


@pytest.mark.parametrize("level", FALLING, ids=["stands", "falls", "hardly_falls"])
@pytest.mark.parametrize(("count", "images"), [(STEPS_TO_JUDGE, 1), (STEPS_TO_JUDGE, 4), (400, 1), (400, 4), (2000, 1)])
def test_chance_is_no_swing(level, count, images):
    assert not any(find_swing(steps(level, count, images, seed=seed)) for seed in range(10))


def test_what_rises_again_is_a_swing_and_is_placed():
    found = find_swing(steps(lambda share: 0.1 + 0.1 * (0.55 < share < 0.75)))
    assert 200 <= found.low <= 240
    assert 240 < found.high <= 320
    assert found.rise == pytest.approx(1, abs=0.4)
    assert f"from step {found.low} to {found.high} it rose by" in found.text()


def test_waves_are_swings():
    assert find_swing(steps(lambda share: 0.1 * (1.5 + math.sin(20 * share))))


def test_short_runs_say_nothing():
    assert find_swing(steps(lambda share: 0.1 + share, STEPS_TO_JUDGE - 1)) is None
    assert find_swing(steps(lambda share: 0.1 + share, STEPS_TO_JUDGE)) is not None
    assert find_swing([]) is None


@pytest.mark.parametrize(("factor", "swings"), [(1.0, True), (0.001, False)])
def test_near_certain_predictions_of_texts_do_not_swing(factor, swings):
    errors = [{"all": factor * (2.0 if 150 <= step < 200 else 0.8)} for step in range(300)]
    assert (find_swing(errors) is not None) == swings
