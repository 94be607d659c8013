"""The loop on a loss that can be followed by hand."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.base_models.base import CachedSample, RowLosses
from lora_crucible.config import parse_config, resolve
from lora_crucible.loop import StepReport, train
from lora_crucible.order import BatchOrder
from torch import nn

VALUES = (1.0, 2.0, 4.0, 8.0)
"""The samples: numbers that one parameter shall be near to."""


def trained(batch_size: int, accumulation: int, **values) -> tuple[float, list[StepReport]]:
    parameter = nn.Parameter(torch.zeros(()))
    samples = [CachedSample(f"{value}.png", "all", value) for value in VALUES]
    settings = {"max_train_steps": 20, "learning_rate": 0.1, "lr_warmup_steps": 4, "weight_decay": 0.0, **values}
    config = resolve(
        parse_config(settings),
        image_count=4,
        samples_per_epoch=4,
        architecture="sd15",
        native_resolution=64,
        sample_cfg=1.0,
    ).values
    reports: list[StepReport] = []

    def losses(rows: list[CachedSample], seeds: list[int]) -> RowLosses:
        values = torch.stack([(parameter - row.inputs) ** 2 for row in rows])
        return RowLosses(values, values.detach(), torch.zeros(len(rows)))

    train(
        losses,
        [parameter],
        samples,
        BatchOrder(["all"] * 4, batch_size, accumulation, seed=1),
        config,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        on_step=reports.append,
    )
    return parameter.item(), reports


def test_accumulated_batches_equal_one_large_batch():
    whole, reports = trained(batch_size=4, accumulation=1)
    for batch_size, accumulation in [(2, 2), (1, 4), (3, 2)]:  # 3 + 1 too: every image weighs the same
        parts, other = trained(batch_size, accumulation)
        assert parts == pytest.approx(whole, rel=1e-5)
        assert [report.loss for report in other] == pytest.approx([report.loss for report in reports], rel=1e-5)


def test_it_learns_towards_the_mean():
    value, reports = trained(4, 1)
    assert 0.5 < value < sum(VALUES) / 4
    assert reports[-1].loss < reports[0].loss


def test_learning_rate_rises_over_the_warmup_and_falls_as_a_cosine():
    _, reports = trained(4, 1)
    rates = [report.learning_rate for report in reports]
    assert rates[:5] == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[12] == pytest.approx(0.05)  # half way down
    assert rates[-1] < 0.002


def test_gradients_are_reported_before_they_are_clipped():
    _, reports = trained(4, 1, max_grad_norm=0.5)
    assert reports[0].gradient_norm == pytest.approx(2 * sum(VALUES) / 4)
