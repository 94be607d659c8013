from __future__ import annotations

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.delta import delta_weight, kind_of, rank_of
from lora_crucible.formats.lora_file import ALPHA, DORA_SCALE, MIDDLE, lora_layer
from lora_crucible.formats.universal import Layers
from lora_crucible.merging.resize import resize

KEY = "lora_unet_a"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def lora(rank=6):
    return lora_layer(torch.randn(rank, 10), torch.randn(12, rank), rank / 2)


OTHERS = {
    "loha": lambda: {
        **{f".hada_w{n}_a": torch.randn(12, 2) for n in (1, 2)},
        **{f".hada_w{n}_b": torch.randn(2, 10) for n in (1, 2)},
        ALPHA: torch.tensor(1.0),
    },
    "lokr": lambda: {".lokr_w1": torch.randn(3, 2), ".lokr_w2": torch.randn(4, 5)},
    "diff": lambda: {".diff": torch.randn(12, 10)},
    "diff of a convolution": lambda: {".diff": torch.randn(12, 4, 3, 3)},
    "lora with a middle": lambda: (
        lora_layer(torch.randn(4, 10, 1, 1), torch.randn(12, 4, 1, 1), 2.0) | {MIDDLE: torch.randn(4, 4, 3, 3)}
    ),
}


def assert_same(one, other):
    torch.testing.assert_close(delta_weight(one), delta_weight(other), rtol=1e-4, atol=1e-5)


def test_a_higher_rank_than_there_is_changes_nothing():
    layer = lora()
    resized = resize(Layers({KEY: layer}), rank=20)
    assert rank_of(resized.lora.layers[KEY]) == 6
    assert resized.errors == {}
    assert_same(resized.lora.layers[KEY], layer)


def test_a_lower_rank_is_the_best_there_is():
    layer = lora()
    resized = resize(Layers({KEY: layer}), rank=4)
    values = torch.linalg.svdvals(delta_weight(layer))
    lost = torch.linalg.vector_norm(delta_weight(layer) - delta_weight(resized.lora.layers[KEY]))
    assert lost.item() == pytest.approx(values[4:].square().sum().sqrt().item(), rel=1e-4)
    assert resized.errors[KEY] == pytest.approx((lost / values.square().sum().sqrt()).item(), rel=1e-3)


@pytest.mark.parametrize("method", OTHERS)
def test_other_methods_become_lora(method):
    layer = OTHERS[method]()
    resized = resize(Layers({KEY: layer}), energy=1.0)
    assert kind_of(resized.lora.layers[KEY]) == "lora"
    assert_same(resized.lora.layers[KEY], layer)


def test_what_has_no_rank_stays():
    layers = {KEY: {".diff_b": torch.randn(12)}, "norm": {".w_norm": torch.randn(6), ".b_norm": torch.randn(6)}}
    layers["both"] = {**lora(), ".diff_b": torch.randn(12)}
    resized = resize(Layers(layers), rank=2).lora.layers
    assert resized[KEY][".diff_b"].equal(layers[KEY][".diff_b"])
    assert resized["norm"].keys() == layers["norm"].keys()
    assert resized["both"][".diff_b"].equal(layers["both"][".diff_b"])
    assert rank_of(resized["both"]) == 2


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"rank": 0}, "rank is 0"), ({"energy": 0.0}, "energy is 0.0"), ({"energy": 1.5}, "energy is 1.5")],
)
def test_what_cannot_be_asked(asked, message):
    with pytest.raises(CrucibleError, match=message):
        resize(Layers({KEY: lora()}), **asked)


def test_a_dora():
    with pytest.raises(CrucibleError, match=f"{KEY} is a DoRA.*--base"):
        resize(Layers({KEY: lora() | {DORA_SCALE: torch.ones(12, 1)}}), rank=2)
