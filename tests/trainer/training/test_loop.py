"""The loop on a loss that can be followed by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from lora_crucible.config import ObjectiveSettings
from lora_crucible.data.batch_sampler import BatchSampler
from lora_crucible.events.step import StepReport
from lora_crucible.memory.step_memory import StepMemory
from lora_crucible.models.diffusion.model import diffusion_losses
from lora_crucible.models.diffusion.objective import PredictionType
from lora_crucible.models.examples import CachedExample, RowLosses
from lora_crucible.models.memory_controls import MemoryControls
from lora_crucible.monitoring.anomalies import ENOUGH, AnomalyDetector
from lora_crucible.optim.engine import Engine
from lora_crucible.optim.optimizers import ParameterGroup
from lora_crucible.optim.stepper import OptimizerStepper
from lora_crucible.training.loop import TrainingLoop
from torch import nn

VALUES = (1.0, 2.0, 4.0, 8.0)
"""The samples: numbers that one parameter shall be near to."""

PACKAGES = {"lion": "lion_pytorch", "prodigy": "prodigyopt", "schedule_free_adamw": "schedulefree"}


class Distance:
    """A model of one number, whose loss is its squared distance from the example's."""

    def __init__(self, weights: dict[float, float] | None = None) -> None:
        self.parameter = nn.Parameter(torch.zeros(()))
        self.memory = MemoryControls()
        self.weights = weights or {}
        self.weights_in_trouble: list[float] = []

    def losses(self, rows: list[CachedExample], seeds: list[int]) -> RowLosses:
        values = torch.stack([(self.parameter - row.inputs) ** 2 for row in rows])
        return RowLosses(values, values.detach(), torch.tensor([row.inputs / 10 for row in rows]))


class Denoiser(Distance):
    """Predicts noise as a multiple of its input, through the losses of a real base model."""

    def __init__(self, **settings) -> None:
        super().__init__()
        self.settings = ObjectiveSettings(**settings)

    def losses(self, rows: list[CachedExample], seeds: list[int]) -> RowLosses:
        latents = torch.stack([torch.full((4, 4, 4), row.inputs / 8) for row in rows])
        return diffusion_losses(
            PredictionType.EPSILON,
            latents,
            seeds,
            lambda timestep: 0.03 + timestep / 100,
            lambda noisy, sigma, _: self.parameter * noisy / (sigma**2 + 1).sqrt().reshape(-1, 1, 1, 1),
            settings=self.settings,
        )


class InOrder(BatchSampler):
    """The samples as they come, so that each has the same place in a step, and the same noise, however it is cut."""

    def step(self, step: int) -> list[list[int]]:
        return [list(range(4))[first : first + self._batch_size] for first in range(0, 4, self._batch_size)]


@pytest.fixture
def trained(complete):
    def run(
        batch_size: int,
        accumulation: int,
        model: Distance | None = None,
        order: type = BatchSampler,
        back_to: int | None = None,
        **values,
    ):
        model = model or Distance()
        examples = [
            CachedExample(f"{value}.png", "all", value, weight=model.weights.get(value, 1.0)) for value in VALUES
        ]
        settings = {"max_train_steps": 20, "learning_rate": 0.1, "lr_warmup_steps": 4, "weight_decay": 0.0}
        config = complete(**settings | values)
        groups = [ParameterGroup("model", [model.parameter], config.learning_rate)]
        optimization = OptimizerStepper(groups, config, Engine(torch.device("cpu"), torch.float32))
        reports: list[StepReport] = []
        states = {0: optimization.state()}

        def on_step(report: StepReport) -> None:
            reports.append(report)
            states.setdefault(report.step, optimization.state())

        def go_back() -> int:
            model.weights_in_trouble.append(model.parameter.item())
            optimization.restore(states[back_to])
            return back_to

        batches = order(["all"] * 4, batch_size, accumulation, seed=1)
        memory = StepMemory(model, examples, batches, complete(batch_size=4))  # of four it never cuts a batch
        anomalies = AnomalyDetector(config, "fp32", lambda: optimization.engine.loss_scale, "image")
        loop = TrainingLoop(
            lambda *rows: model.losses(*rows),
            optimization,
            examples,
            batches,
            config,
            memory,
            model.memory,
            anomalies,
            go_back,
            on_step,
        )
        with memory.watched(optimization):
            loop.run(0)
        with optimization.weights_for_use():
            return model.parameter.item(), reports

    return run


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "lion", "prodigy", "schedule_free_adamw"])
@pytest.mark.parametrize(
    ("model", "order"),
    [(Distance, BatchSampler), (partial(Denoiser, loss_weighting="min_snr", loss_type="huber"), InOrder)],
    ids=["plain", "weighted"],
)
def test_accumulated_batches_equal_one_large_batch(trained, optimizer, model, order):
    pytest.importorskip(PACKAGES.get(optimizer, "torch"))
    settings = {"optimizer": optimizer, "learning_rate": "auto" if optimizer == "prodigy" else 0.1}
    whole, reports = trained(4, 1, model(), order, **settings)
    assert whole != 0
    for batch_size, accumulation in [(2, 2), (1, 4), (3, 2)]:  # 3 + 1 too: every image weighs the same
        parts, other = trained(batch_size, accumulation, model(), order, **settings)
        assert parts == pytest.approx(whole, rel=1e-4)
        assert [report.loss for report in other] == pytest.approx([report.loss for report in reports], rel=1e-4)
        assert other[-1].errors == pytest.approx(reports[-1].errors, rel=1e-4)


@pytest.mark.parametrize("cut", [(2, 2), (1, 4), (3, 2)])
def test_examples_count_by_their_weights_however_a_step_is_cut(trained, cut):
    """As texts do, of different numbers of tokens."""
    weights = {1.0: 5.0, 2.0: 1.0, 4.0: 0.5, 8.0: 40.0}
    settings = {"learning_rate": 0.5, "max_train_steps": 40}
    whole, reports = trained(4, 1, Distance(weights), InOrder, **settings)
    parts, other = trained(*cut, Distance(weights), InOrder, **settings)
    assert parts == pytest.approx(whole, rel=1e-4)
    assert [report.loss for report in other] == pytest.approx([report.loss for report in reports], rel=1e-4)
    first = sum(weight * value**2 for value, weight in weights.items()) / sum(weights.values())
    assert reports[0].loss == pytest.approx(first)
    unweighted, _ = trained(4, 1, Distance(), InOrder, **settings)
    assert abs(whole - unweighted) > 0.01


def test_it_learns_towards_the_mean(trained):
    value, reports = trained(4, 1)
    assert 0.5 < value < sum(VALUES) / 4
    assert reports[-1].loss < reports[0].loss


def test_learning_rate_rises_over_the_warmup_and_falls_as_a_cosine(trained):
    _, reports = trained(4, 1)
    rates = [report.learning_rates["model"] for report in reports]
    assert rates[:5] == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[12] == pytest.approx(0.05)  # half way down
    assert rates[-1] < 0.002


def test_gradients_are_reported_before_they_are_clipped(trained):
    _, reports = trained(4, 1, max_grad_norm=0.5)
    assert reports[0].gradient_norm == pytest.approx(2 * sum(VALUES) / 4)


def test_a_step_says_what_it_saw(trained):
    _, reports = trained(2, 1)
    first, second = reports[:2]
    assert (first.step, second.step) == (1, 2)
    assert sorted(row.name for report in (first, second) for row in report.rows) == sorted(
        f"{value}.png" for value in VALUES
    )
    squares = [float(name.removesuffix(".png")) ** 2 for name in (row.name for row in first.rows)]
    assert first.loss == pytest.approx(sum(squares) / 2)
    assert sum(first.errors.values()) > 0
    assert first.seconds > 0
    assert 0.01 < first.memory_gb < 1000


class Spoiled(Distance):
    """Its losses of one call, counted from 1, are multiplied."""

    def __init__(self, call: int, by: float) -> None:
        super().__init__()
        self.calls, self.call, self.by = 0, call, by

    def losses(self, rows: list[CachedExample], seeds: list[int]) -> RowLosses:
        self.calls += 1
        losses = super().losses(rows, seeds)
        return replace(losses, values=losses.values * (self.by if self.calls == self.call else 1))


@pytest.mark.parametrize("by", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_goes_back_before_it_does_harm(trained, by):
    plain, _ = trained(4, 1)
    model = Spoiled(8, by)
    value, reports = trained(4, 1, model, back_to=5)
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6, 7, *range(6, 21)]
    assert len(model.weights_in_trouble) == 1
    assert 0 < model.weights_in_trouble[0] < value
    assert value == plain


def test_a_spike_is_skipped_and_the_schedule_goes_on(trained):
    number, steps = ENOUGH + 10, ENOUGH + 15
    plain, usual = trained(4, 1, max_train_steps=steps)
    weights = []
    model = Spoiled(number, 1e4)
    good = model.losses
    model.losses = lambda rows, seeds: weights.append(model.parameter.item()) or good(rows, seeds)
    value, reports = trained(4, 1, model, max_train_steps=steps)
    assert [report.step for report in reports if report.skipped] == [number]
    assert weights[number] == weights[number - 1] != weights[number - 2]
    rates, usual_rates = ([report.learning_rates for report in run] for run in (reports, usual))
    assert rates == usual_rates
    assert value == pytest.approx(plain, rel=0.1)


def test_each_step_names_its_images_with_their_errors(trained):
    _, reports = trained(3, 2)  # batches of 3 and 1
    first = reports[0].rows
    assert sorted(row.name for row in first) == ["1.0.png", "2.0.png", "4.0.png", "8.0.png"]
    assert all(row.error == float(row.name.removesuffix(".png")) ** 2 for row in first)  # the parameter is 0
    assert reports[0].loss == sum(row.error for row in first) / 4
