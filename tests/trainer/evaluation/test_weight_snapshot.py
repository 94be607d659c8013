"""Going back to earlier weights."""

from __future__ import annotations

import pytest
import torch
from lora_crucible.evaluation.weight_snapshot import copied, put, swapped
from torch import nn


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor(3.0))]


def test_copies_stay_as_they_were():
    weights = parameters()
    before = copied(weights)
    with torch.no_grad():
        weights[0].add_(5)
    put(before, weights)
    assert weights[0].tolist() == [1, 2]
    assert weights[0].requires_grad


def test_swapped_weights_come_back_whatever_happens():
    weights = parameters()
    other = [torch.zeros(2), torch.tensor(7.0)]

    def fail() -> None:
        with swapped(other, weights):
            assert weights[1].item() == 7
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [weight.tolist() for weight in weights] == [[1, 2], 3]
