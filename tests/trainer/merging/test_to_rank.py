"""LoRA layers that are given another rank or alpha."""

import pytest
import torch
from lora_crucible.formats.delta import delta_weight, scale_of
from lora_crucible.formats.lora_file import DORA_SCALE, DOWN, UP, lora_layer
from lora_crucible.merging.to_rank import resized


@pytest.fixture
def layers():
    torch.manual_seed(0)
    return {
        "linear": lora_layer(torch.randn(6, 20), torch.randn(12, 6), 3.0),
        "convolution": lora_layer(torch.randn(4, 5, 3, 3), torch.randn(12, 4, 1, 1), 4.0),
        "dora": lora_layer(torch.randn(3, 20), torch.randn(12, 3), 3.0) | {DORA_SCALE: torch.rand(12, 1)},
        "small": lora_layer(torch.randn(8, 20), torch.randn(2, 8), 8.0),
        "other": {".hada_w1_a": torch.randn(12, 2)},
    }


def without_scale(layer):
    return {suffix: tensor for suffix, tensor in layer.items() if suffix != DORA_SCALE}


def test_a_lower_rank_is_the_best_of_that_rank(layers):
    found, lost = resized(layers, 2, None, False, 1)
    squares = rest = 0.0
    for key in ("linear", "convolution", "dora", "small"):
        before = delta_weight(without_scale(layers[key]))
        after = delta_weight(without_scale(found[key]))
        u, s, v = torch.linalg.svd(before.flatten(1), full_matrices=False)
        torch.testing.assert_close(after.flatten(1), u[:, :2] * s[:2] @ v[:2], rtol=1e-3, atol=1e-4)
        assert after.shape == before.shape
        assert found[key][DOWN].shape[0] == found[key][UP].shape[1] == 2
        assert scale_of(found[key]) == pytest.approx(scale_of(layers[key]))
        squares, rest = squares + s.square().sum(), rest + s[2:].square().sum()
    assert lost == pytest.approx(float((rest / squares).sqrt()), rel=1e-3)
    assert found["other"] is layers["other"]
    assert torch.equal(found["dora"][DORA_SCALE], layers["dora"][DORA_SCALE])


@pytest.mark.parametrize("rank", [None, 9])
@pytest.mark.parametrize(("alpha", "rank_stabilized"), [(None, False), (5.0, False), (5.0, True)])
def test_a_higher_rank_or_another_alpha_does_the_same(layers, rank, alpha, rank_stabilized):
    found, lost = resized(layers, rank, alpha, rank_stabilized, 1)
    assert lost == (None if rank is None else 0.0)
    for key in ("linear", "convolution", "dora", "small"):
        before, after = without_scale(layers[key]), without_scale(found[key])
        torch.testing.assert_close(delta_weight(after), delta_weight(before), rtol=1e-4, atol=1e-5)
        now = rank or len(before[DOWN])
        assert len(after[DOWN]) == now
        if alpha is not None:
            assert scale_of(after) == pytest.approx(alpha / (now**0.5 if rank_stabilized else now))


def test_new_directions_can_be_learned(layers):
    """If both factors were zero there, neither would ever get a gradient."""
    found, _ = resized(layers, 9, None, False, 1)
    assert found["linear"][DOWN][6:].abs().min() > 0
    assert not found["linear"][UP][:, 6:].any()
    assert torch.equal(resized(layers, 9, None, False, 1)[0]["linear"][DOWN], found["linear"][DOWN])
