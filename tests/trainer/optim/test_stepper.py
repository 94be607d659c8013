"""Weights during training and weights for use."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.optim.engine import Engine
from lora_crucible.optim.optimizers import ParameterGroup
from lora_crucible.optim.stepper import OptimizerStepper
from torch import nn


@pytest.fixture
def optimization(complete):
    def make(scaled: bool = False, **values) -> OptimizerStepper:
        draw = torch.Generator().manual_seed(1)
        parameters = [nn.Parameter(torch.randn(4, 3, generator=draw)) for _ in range(2)]
        optimizer = values.get("optimizer")
        rate = 1.0 if optimizer == "prodigy" else 0.05
        if optimizer == "schedule_free_adamw":
            values = {name: value for name, value in values.items() if name not in ("lr_scheduler", "ema_decay")}
        config = complete(**{"learning_rate": rate, "max_train_steps": 40, "lr_warmup_steps": 0} | values)
        groups = [ParameterGroup("model", parameters, config.learning_rate)]
        return OptimizerStepper(groups, config, Engine(torch.device("cpu"), torch.float16 if scaled else torch.float32))

    return make


def steps(optimization: OptimizerStepper, count: int, first: int = 0):
    """Follow gradients that are the same in every test."""
    for step in range(first, first + count):
        draw = torch.Generator().manual_seed(step)
        gradients = [weight.detach() + torch.randn(weight.shape, generator=draw) for weight in optimization.parameters]
        loss = sum(
            (weight * gradient).sum() for weight, gradient in zip(optimization.parameters, gradients, strict=True)
        )
        optimization.backward(loss)
        optimization.clip_gradients()
        optimization.step()


def values(optimization: OptimizerStepper) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in optimization.parameters]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("decay", [0.3, 0.95])
def test_average_is_that_of_the_formula(optimization, decay):
    """The decay starts low, so that early weights, which have learned nothing, are soon forgotten."""
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


def _cancel_in_use(trained: OptimizerStepper) -> None:
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
    trained = OptimizerStepper(groups, complete(max_grad_norm=1.0), Engine(torch.device("cpu"), torch.float32))
    trained.backward(3 * parts[0].sum() + 4 * parts[1].sum())
    assert trained.clip_gradients().item() == pytest.approx(5)
    assert [part.grad.item() for part in parts] == pytest.approx([0.6, 0.8])


PACKAGES = {"lion": "lion_pytorch", "prodigy": "prodigyopt", "schedule_free_adamw": "schedulefree"}
every_optimizer = pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "lion", "prodigy", "schedule_free_adamw"])


@every_optimizer
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_one_state_can_be_gone_back_to_again_and_again(optimization, optimizer, ema_decay):
    pytest.importorskip(PACKAGES.get(optimizer, "torch"))
    trained = optimization(optimizer=optimizer, ema_decay=ema_decay, lr_scheduler="cosine")
    results = []
    for first in (0, 7):
        steps(trained, first)
        state = trained.state()
        for _ in range(3):
            steps(trained, 4, first=first)
            with trained.weights_for_use():
                results.append(values(trained))
            trained.restore(state)
        assert same(results[-1], results[-2])
        assert same(results[-1], results[-3])


@every_optimizer
def test_slowed_down_it_follows_its_schedule_lower(optimization, optimizer):
    pytest.importorskip(PACKAGES.get(optimizer, "torch"))
    trained = optimization(optimizer=optimizer, lr_scheduler="cosine", lr_warmup_steps=6, weight_decay=0.0)
    steps(trained, 3)
    state = trained.state()

    def rates(factor: float) -> list[float]:
        trained.restore(state)
        trained.slow_down(factor)
        before = values(trained)
        found = []
        for step in range(3, 12):
            steps(trained, 1, first=step)
            found.append(trained.optimizer.param_groups[0].get("scheduled_lr", trained.optimizer.param_groups[0]["lr"]))
        moved.append(sum((one - two).norm().item() for one, two in zip(values(trained), before, strict=True)))
        return found

    moved: list[float] = []
    whole, half = rates(1.0), rates(0.5)
    assert half == pytest.approx([rate / 2 for rate in whole])
    assert rates(1.0) == whole
    assert moved[0] == moved[2]
    assert 0.3 < moved[1] / moved[0] < 0.7


def test_all_parts_are_slowed_down_and_clipped_harder(complete):
    parts = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    groups = [ParameterGroup("model", parts[:1], 0.1), ParameterGroup("text encoder", parts[1:], 0.04)]
    config = complete(lr_scheduler="constant", lr_warmup_steps=0)
    trained = OptimizerStepper(groups, config, Engine(torch.device("cpu"), torch.float32))
    trained.slow_down(0.25)
    for part in parts:
        part.grad = torch.ones(1)
    trained.clip_gradients()
    assert torch.cat([part.grad for part in parts]).norm().item() == pytest.approx(0.5)
    assert trained.step() == pytest.approx({"model": 0.025, "text encoder": 0.01})


def test_clipping_that_was_tighter_stays(optimization):
    trained = optimization(max_grad_norm=0.1)
    trained.slow_down(0.5)
    for weight in trained.parameters:
        weight.grad = torch.ones_like(weight)
    trained.clip_gradients()
    assert torch.cat([weight.grad.flatten() for weight in trained.parameters]).norm().item() == pytest.approx(0.1)


@every_optimizer
@pytest.mark.parametrize("scaled", [False, True])
def test_a_skipped_step_moves_the_schedule_alone(optimization, optimizer, scaled):
    pytest.importorskip(PACKAGES.get(optimizer, "torch"))
    skipping = optimization(scaled, optimizer=optimizer, lr_scheduler="cosine", ema_decay=0.9)
    steps(skipping, 3)
    before = skipping.state()
    skipping.backward(sum(weight.sum() for weight in skipping.parameters) * 1e6)
    skipping.clip_gradients()
    skipping.skip()
    after = skipping.state()
    assert same(before["weights"], after["weights"])
    assert str(before["average"]) == str(after["average"])
    assert str(before["optimizer"]["state"]) == str(after["optimizer"]["state"])
    assert after["schedule"] == (None if before["schedule"] is None else before["schedule"] + 1)
    assert after["scaler"] == before["scaler"]
    steps(skipping, 3, first=3)
    assert not same(before["weights"], skipping.state()["weights"])


def test_gradients_that_overflow_when_scaled_lower_the_scale_and_leave_the_weights(optimization):
    trained = optimization(scaled=True)
    before, scale = values(trained), trained.engine.loss_scale
    trained.backward(sum(weight.sum() for weight in trained.parameters) * 1e38)
    assert not trained.clip_gradients().isfinite()
    trained.step()
    assert same(before, values(trained))
    assert trained.engine.loss_scale == scale / 2


def test_weights_that_are_no_numbers_are_found(optimization):
    trained = optimization()
    assert trained.is_finite()
    with torch.no_grad():
        trained.parameters[1][0, 0] = torch.nan
    assert not trained.is_finite()
