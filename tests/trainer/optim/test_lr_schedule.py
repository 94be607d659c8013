"""Each schedule has the shape that its name says, for every part of the LoRA."""

from __future__ import annotations

import math

import pytest
import torch
from lora_crucible.optim.lr_schedule import make_schedule
from lora_crucible.optim.optimizers import ParameterGroup, make_optimizer
from torch import nn

STEPS, WARMUP = 100, 20
PROGRESS = (0.0, 0.25, 0.6, 0.99)
"""Fractions of the way from the end of the warmup to the end of the run."""

SHAPES = {
    "constant": lambda p: 1.0,
    "linear": lambda p: 1 - p,
    "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2,
    "cosine_with_restarts": lambda p: (1 + math.cos(math.pi * (3 * p % 1))) / 2,
    "polynomial": lambda p: (1 - p) ** 2,
}


def rates(config) -> list[list[float]]:
    """Return the learning rates of all steps, for a part with the config's rate and one with a tenth of it."""
    groups = [
        ParameterGroup("model", [nn.Parameter(torch.zeros(1))], config.learning_rate),
        ParameterGroup("text_encoder", [nn.Parameter(torch.zeros(1))], config.learning_rate / 10),
    ]
    optimizer = make_optimizer(groups, config)
    schedule = make_schedule(optimizer, config)
    found = []
    for _ in range(STEPS):
        found.append(schedule.get_last_lr())
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_rises_linearly_and_then_has_its_shape(name, complete):
    config = complete(
        lr_scheduler=name,
        lr_scheduler_num_cycles=3,
        lr_scheduler_power=2,
        max_train_steps=STEPS,
        lr_warmup_steps=WARMUP,
        learning_rate=0.01,
    )
    found = rates(config)
    assert [rate for rate, _ in found[: WARMUP + 1]] == pytest.approx([0.01 * step / 20 for step in range(21)])
    for progress in PROGRESS:
        step = round(WARMUP + progress * (STEPS - WARMUP))
        expected = 0.01 * SHAPES[name]((step - WARMUP) / (STEPS - WARMUP))
        assert found[step] == pytest.approx([expected, expected / 10])


@pytest.mark.parametrize("name", SHAPES)
def test_the_smallest_learning_rates_have_a_schedule_too(name, complete):
    settings = {"max_train_steps": STEPS, "lr_warmup_steps": 0, "lr_scheduler_num_cycles": 3, "lr_scheduler_power": 2}
    found = rates(complete(lr_scheduler=name, learning_rate=1e-9, **settings))
    assert found[60] == pytest.approx([1e-9 * SHAPES[name](0.6), 1e-10 * SHAPES[name](0.6)], rel=1e-3)


def test_schedule_free_has_none(complete):
    pytest.importorskip("schedulefree")
    config = complete(optimizer="schedule_free_adamw")
    optimizer = make_optimizer([ParameterGroup("model", [nn.Parameter(torch.zeros(1))], 0.1)], config)
    assert make_schedule(optimizer, config) is None
