"""Rounds of validation differ by what was learned, and by nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from lora_crucible.evaluation.validation import Validation
from lora_crucible.models.examples import CachedExample, RowLosses
from lora_crucible.models.memory_controls import MemoryControls
from torch import nn

TIMESTEPS = (0.1, 0.3, 0.5, 0.7, 0.9)


class Model:
    """Its error on a row is how far its parameter is from the row's number, times the noise it is shown with."""

    measured_timesteps = TIMESTEPS
    memory = MemoryControls()

    def __init__(self) -> None:
        self.parameter = nn.Parameter(torch.tensor(0.0))
        self.calls: list[list[tuple[str, int, float]]] = []

    def losses(self, rows: Sequence[CachedExample], seeds: Sequence[int], timesteps: Sequence[float]) -> RowLosses:
        self.calls.append([(row.name, *more) for row, *more in zip(rows, seeds, timesteps, strict=True)])
        assert len({row.group for row in rows}) == 1
        levels = torch.tensor(timesteps)
        values = (torch.stack([self.parameter - row.inputs for row in rows])) ** 2 * levels
        return RowLosses(values, values.detach(), levels)


def sample(number: float, group: str = "square") -> CachedExample:
    return CachedExample(f"{number}.png", group, torch.tensor(number))


def test_errors_are_means_over_images_and_timesteps():
    model = Model()
    validation = Validation(model, [sample(1), sample(3)], [sample(2)], batch_size=4, seed=0)
    found = validation.measure(20, 0.5)
    assert (found.step, found.trained) == (20, 0.5)
    mean = sum(TIMESTEPS) / len(TIMESTEPS)
    assert found.held_out == pytest.approx((1 + 9) / 2 * mean)
    assert found.training == pytest.approx(4 * mean)
    assert found.error == found.held_out
    assert found.by_timestep == pytest.approx([5 * timestep for timestep in TIMESTEPS])


def test_every_round_has_the_same_noise_and_every_row_its_own():
    model = Model()
    validation = Validation(model, [sample(1), sample(3)], [sample(2)], batch_size=4, seed=0)
    validation.measure(0, 0.0)
    first, model.calls = model.calls, []
    validation.measure(10, 0.0)
    assert model.calls == first
    seeds = [seed for batch in first for name, seed, _ in batch if name != "2.png"]
    assert len(set(seeds)) == len(seeds) == 2 * len(TIMESTEPS)


def test_batches_hold_rows_of_one_shape_and_no_more_than_asked():
    model = Model()
    images = [sample(1, "wide"), sample(2, "tall"), sample(3, "wide")]
    Validation(model, images, [sample(2)], batch_size=4, seed=0).measure(0, 0.0)
    assert max(map(len, model.calls)) == 4
    assert sum(map(len, model.calls)) == 4 * len(TIMESTEPS)


def test_no_gradient_is_made():
    model = Model()
    Validation(model, [sample(1)], [sample(2)], batch_size=4, seed=0).measure(0, 0.0)
    assert model.parameter.grad is None


def test_without_images_for_validation_the_training_images_stand_in():
    found = Validation(Model(), [], [sample(2)], batch_size=4, seed=0).measure(0, 0.0)
    assert found.held_out is None
    assert found.error == found.training > 0


def test_an_example_counts_by_its_weight():
    """So that the error of texts is the mean over tokens, whose exponential is the perplexity."""
    rows = [
        CachedExample("short", 8, torch.tensor(1.0), weight=1),
        CachedExample("long", 8, torch.tensor(3.0), weight=9),
    ]
    found = Validation(Model(), rows, [sample(2)], batch_size=1, seed=0).measure(0, 0.0)
    assert found.held_out == pytest.approx((1 * 1 + 9 * 9) / 10 * sum(TIMESTEPS) / len(TIMESTEPS))
