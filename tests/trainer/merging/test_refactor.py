from __future__ import annotations

import pytest
import torch
from lora_crucible.formats.delta import delta_weight
from lora_crucible.formats.lora_file import ALPHA, lora_layer
from lora_crucible.merging.refactor import as_lora, dense_svd, factors_of, rank_for_energy, thin_svd


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_the_thin_way_is_the_exact_one():
    up, down = torch.randn(30, 6), torch.randn(6, 20)
    u, s, v = thin_svd(up, down)
    torch.testing.assert_close(s, torch.linalg.svdvals(up @ down)[:6])
    torch.testing.assert_close(u * s @ v, up @ down)


def test_the_randomized_way_is_nearly_as_good():
    """The matrix is like a merged one: a few directions matter, and many matter little."""
    decay = torch.cat([torch.linspace(10, 1, 20), torch.full((380,), 0.05)])
    left, right = torch.linalg.qr(torch.randn(500, 400))[0], torch.linalg.qr(torch.randn(400, 400))[0]
    matrix = left * decay @ right.T
    u, s, v = dense_svd(matrix, 16)
    best = decay[16:].square().sum().sqrt()
    assert torch.linalg.vector_norm(matrix - u[:, :16] * s[:16] @ v[:16]) < 1.001 * best
    again = dense_svd(matrix, 16)
    assert all(one.equal(other) for one, other in zip((u, s, v), again, strict=True))


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    dense_svd(torch.randn(400, 400, generator=torch.Generator()), 4)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(("energy", "rank"), [(1.0, 3), (0.98, 2), (0.5, 1), (0.9, 1), (0.901, 2)])
def test_rank_for_energy(energy, rank):
    values = torch.tensor([0.90, 0.09, 0.01], dtype=torch.float64).sqrt()
    assert rank_for_energy(values, energy) == rank


def test_rank_for_energy_of_nothing():
    assert rank_for_energy(torch.zeros(4), 0.9) == 1


@pytest.mark.parametrize("shape", [(12, 10), (12, 4, 3, 3), (12, 10, 1, 1)])
def test_factors_and_back(shape):
    kernel = [1] * (len(shape) - 2)
    adapter = lora_layer(torch.randn(3, *shape[1:]), torch.randn(12, 3, *kernel), 1.5)
    rebuilt = as_lora(*thin_svd(*factors_of(adapter)), 3, shape)
    assert float(rebuilt[ALPHA]) == 3
    torch.testing.assert_close(delta_weight(rebuilt), delta_weight(adapter))
