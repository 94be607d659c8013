"""How alike pictures are."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.evaluation.image_similarity import distances, likeness, mean_distance


def noise(seed: int, count: int = 2, side: int = 64) -> torch.Tensor:
    coarse = torch.rand(count, 8, 8, 3, generator=torch.Generator().manual_seed(seed))
    return coarse.repeat_interleave(side // 8, 1).repeat_interleave(side // 8, 2)


def test_distance_is_none_to_itself_and_one_from_black_to_white():
    pictures = noise(0)
    assert distances(pictures, pictures).tolist() == [0, 0]
    assert distances(torch.zeros(1, 64, 48, 3), torch.ones(1, 64, 48, 3)).tolist() == [1]


def test_size_and_fine_noise_hardly_count():
    pictures = noise(0)
    grain = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1)) * 0.1
    assert distances(pictures, pictures + grain).max() < 0.05 < distances(noise(0), noise(1)).min()
    assert distances(noise(0, side=128), noise(0, side=64)).max() == pytest.approx(0, abs=1e-6)


def test_likeness_sees_through_brightness_and_contrast():
    alike = likeness(noise(0), torch.cat([noise(1), noise(0) * 0.5 + 0.3]))
    assert alike.shape == (2, 4)
    assert alike[0].argmax() == 2
    assert alike[1].argmax() == 3
    assert alike[0, 2] == pytest.approx(1, abs=1e-4)
    assert alike[0, :2].abs().max() < 0.5


def test_a_flat_picture_is_like_nothing():
    assert likeness(torch.full((1, 64, 64, 3), 0.7), noise(0)).abs().max() < 1e-3


def test_mean_distance_is_that_of_all_pairs():
    pictures = torch.cat([noise(0), noise(1, count=1)])
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = sum(float(distances(pictures[one : one + 1], pictures[two : two + 1])) for one, two in pairs) / 3
    assert mean_distance(pictures) == pytest.approx(expected, rel=1e-4)
