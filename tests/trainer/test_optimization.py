"""Weights in training and weights for use."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.optimization import Optimization
from lora_crucible.optimizers import ParameterGroup
from torch import nn


@pytest.fixture
def optimization(complete):
    def make(**values) -> Optimization:
        draw = torch.Generator().manual_seed(1)
        parameters = [nn.Parameter(torch.randn(4, 3, generator=draw)) for _ in range(2)]
        config = complete(**{"learning_rate": 0.05, "max_train_steps": 40, "lr_warmup_steps": 0} | values)
        groups = [ParameterGroup("model", parameters, config.learning_rate)]
        return Optimization(groups, config, torch.amp.GradScaler("cpu", enabled=False))

    return make


def steps(optimization: Optimization, count: int, first: int = 0):
    """Follow gradients that are the same in every test."""
    for step in range(first, first + count):
        draw = torch.Generator().manual_seed(step)
        for weight in optimization.parameters:
            weight.grad = weight.detach() + torch.randn(weight.shape, generator=draw)
        optimization.clip_gradients()
        optimization.step()


def values(optimization: Optimization) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in optimization.parameters]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("decay", [0.3, 0.95])
def test_average_is_that_of_the_formula(optimization, decay):
    """The decay is reached from below: early weights, which know nothing, are forgotten soon."""
    trained = optimization(ema_decay=decay)
    expected = None
    for step in range(1, 31):
        steps(trained, 1, first=step)
        kept = 0.0 if step == 1 else min(decay, step / (9 + step))
        now = values(trained)
        expected = now if expected is None else [kept * a + (1 - kept) * b for a, b in zip(expected, now, strict=True)]
    with trained.weights_for_use():
        for weight, average in zip(trained.parameters, expected, strict=True):
            assert torch.allclose(weight, average, atol=1e-6)
            assert not torch.allclose(weight, now[0], atol=1e-3)


def test_a_cancelled_sample_leaves_the_weights_in_training(optimization):
    trained = optimization(ema_decay=0.9)
    steps(trained, 5)
    before = values(trained)
    with pytest.raises(KeyboardInterrupt):
        _cancel_in_use(trained)
    assert same(values(trained), before)


def _cancel_in_use(trained: Optimization) -> None:
    with trained.weights_for_use():
        raise KeyboardInterrupt


USES = [{}, {"ema_decay": 0.9}, {"optimizer": "schedule_free_adamw"}]


@pytest.mark.parametrize("settings", USES, ids=["plain", "average", "schedule_free"])
def test_looking_at_the_weights_changes_nothing(optimization, settings):
    if "optimizer" in settings:
        pytest.importorskip("schedulefree")
    undisturbed, disturbed = optimization(**settings), optimization(**settings)
    steps(undisturbed, 9)
    with disturbed.weights_for_use():
        pass
    for step in range(9):
        steps(disturbed, 1, first=step)
        before = values(disturbed)
        with disturbed.weights_for_use():
            assert same(values(disturbed), before) == (not settings or step == 0)
        assert same(values(disturbed), before)
    assert same(values(undisturbed), values(disturbed))


def test_schedule_free_weights_are_the_librarys(optimization):
    schedulefree = pytest.importorskip("schedulefree")
    ours = optimization(optimizer="schedule_free_adamw", lr_warmup_steps=4)
    weights = [nn.Parameter(weight) for weight in values(ours)]
    theirs = schedulefree.AdamWScheduleFree(weights, lr=0.05, weight_decay=0.01, warmup_steps=4)
    theirs.train()
    steps(ours, 10)
    for step in range(10):
        draw = torch.Generator().manual_seed(step)
        for weight in weights:
            weight.grad = weight.detach() + torch.randn(weight.shape, generator=draw)
        nn.utils.clip_grad_norm_(weights, 1.0)
        theirs.step()
    theirs.eval()
    with ours.weights_for_use():
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours.parameters, weights, strict=True))


def test_schedule_free_shows_its_warmup(optimization):
    pytest.importorskip("schedulefree")
    trained = optimization(optimizer="schedule_free_adamw", lr_warmup_steps=4)
    rates = []
    for _ in range(6):
        for weight in trained.parameters:
            weight.grad = torch.ones_like(weight)
        rates.append(trained.step()["model"])
    assert rates == pytest.approx([0.0125, 0.025, 0.0375, 0.05, 0.05, 0.05])


def test_gradients_of_all_parts_are_clipped_together(complete):
    parts = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    groups = [ParameterGroup("model", parts[:1], 0.1), ParameterGroup("text_encoder", parts[1:], 0.1)]
    trained = Optimization(groups, complete(max_grad_norm=1.0), torch.amp.GradScaler("cpu", enabled=False))
    trained.backward(3 * parts[0].sum() + 4 * parts[1].sum())
    assert trained.clip_gradients().item() == pytest.approx(5)
    assert [part.grad.item() for part in parts] == pytest.approx([0.6, 0.8])
