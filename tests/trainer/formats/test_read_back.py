"""A file is kept only if each layer, read back from it, does what was asked for."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.forms import to_form
from lora_crucible.formats.lora_file import (
    ALPHA,
    BIAS,
    DOWN,
    MAGNITUDE,
    MIDDLE,
    RESHAPE,
    SET,
    UP,
    lora_layer,
    read_lora,
    to_state_dict,
)
from lora_crucible.formats.names import place_of
from lora_crucible.formats.read_back import same_effect, save_layers
from lora_crucible.formats.universal import Layers, read_layers

FLUX = ARCHITECTURES["flux1"]
PLACE = partial(place_of, architecture=FLUX)
QKV, PROJ = "lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_double_blocks_0_img_attn_proj"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def lora(out=24, inputs=8, rank=3, alpha=1.5, size=1.0):
    return lora_layer(size * torch.randn(rank, inputs), torch.randn(out, rank), alpha)


def through_a_file(layer, dtype, form="kohya", key=QKV):
    """Return the layer as read from a file of this form and dtype, without writing it."""
    layers = Layers({key: layer})
    return read_layers(to_form(layers, FLUX, form, dtype), PLACE).layers[key]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["kohya", "comfyui", "diffusers"])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("shape", [(24, 8, 1), (24, 8, 3), (192, 512, 16)])
def test_rounding_is_no_difference(dtype, form, size, shape):
    layer = lora(*shape, alpha=0.7 * shape[2], size=size)
    assert same_effect(layer, through_a_file(layer, dtype, form))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_of_equal_numbers_is_no_difference(dtype):
    layer = lora_layer(torch.full((4, 512), 0.1), torch.full((24, 4), 0.3), 0.7)
    assert same_effect(layer, through_a_file(layer, dtype, "diffusers"))


WRONG = {
    "two rows swapped": lambda layer: layer[UP][:2].copy_(layer[UP][:2].flip(0)),
    "one column": lambda layer: layer[DOWN][:, 300].mul_(-1),
    "one row": lambda layer: layer[UP][5].mul_(1.5),
    "the alpha": lambda layer: layer[ALPHA].mul_(1.05),
    "one number": lambda layer: layer[DOWN][2, 7].add_(2.0),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("what", WRONG)
def test_a_product_that_differs_is_seen(dtype, what):
    layer = lora(192, 512, rank=16)
    read = through_a_file(layer, dtype)
    WRONG[what](read)
    assert not same_effect(layer, read)


@pytest.mark.parametrize(
    "extra",
    [
        {BIAS: torch.ones(24)},
        {MAGNITUDE: torch.ones(24)},
        {RESHAPE: torch.tensor([24, 16])},
        {".dora_scale": torch.ones(24, 1)},
    ],
)
def test_what_a_lora_has_beside_its_factors_must_be_there(extra):
    layer = lora()
    assert same_effect(layer | extra, layer | extra)
    assert not same_effect(layer | extra, layer)
    assert not same_effect(layer, layer | extra)
    (suffix,) = extra
    assert not same_effect(layer | extra, layer | {suffix: 2 * extra[suffix]})


def test_what_has_no_effect_need_not_be_there():
    layer = lora()
    assert same_effect(layer | {BIAS: torch.zeros(24), RESHAPE: torch.tensor([24, 8])}, layer)


def test_a_middle_factor_may_be_multiplied_in():
    layer = {
        DOWN: torch.randn(4, 8, 1, 1),
        MIDDLE: torch.randn(4, 4, 3, 3),
        UP: torch.randn(24, 4, 1, 1),
        ALPHA: torch.tensor(2.0),
    }
    whole = torch.einsum("rsxy,si->rixy", layer[MIDDLE], layer[DOWN].flatten(1))
    merged = {UP: layer[UP], ALPHA: layer[ALPHA], DOWN: whole}
    assert same_effect(layer, merged)
    assert not same_effect(layer, merged | {DOWN: whole.flip(0)})


@pytest.mark.parametrize(
    "layer",
    [
        {".diff": torch.randn(24, 8), BIAS: torch.randn(24)},
        {SET: torch.randn(24)},
        {".lokr_w1": torch.randn(4, 4), ".lokr_w2": torch.randn(6, 2), ALPHA: torch.tensor(1.0)},
        {f".hada_w{n}_{x}": torch.randn(*s) for n in (1, 2) for x, s in (("a", (24, 2)), ("b", (2, 8)))},
        {".oft_blocks": torch.randn(4, 6, 6), ALPHA: torch.tensor(0.1)},
    ],
)
def test_other_methods_are_compared_number_by_number(layer):
    read = {suffix: tensor.half() for suffix, tensor in layer.items()}
    assert same_effect(layer, read)
    changed = next(suffix for suffix in layer if suffix != ALPHA)
    assert not same_effect(layer, read | {changed: read[changed] * 1.01})
    assert not same_effect(layer, {suffix: tensor for suffix, tensor in read.items() if suffix != changed})


def saved(path, layers, tensors):
    return save_layers(path, layers, tensors, {}, PLACE)


def test_a_right_file_gets_its_name(tmp_path):
    layers = {QKV: lora(), PROJ: lora(8)}
    path = tmp_path / "x.safetensors"
    assert saved(path, layers, to_state_dict(layers, torch.float16)) == path.stat().st_size
    assert len(read_lora(path)[0]) == 6


@pytest.mark.parametrize("fault", ["missing", "more", "wrong", "broken"])
def test_a_wrong_file_does_not(tmp_path, fault):
    layers = {QKV: lora(), PROJ: lora(8)}
    tensors = to_state_dict(layers, torch.float16)
    if fault == "missing":
        tensors = {key: tensor for key, tensor in tensors.items() if key.startswith(QKV)}
    elif fault == "more":
        layers = {QKV: layers[QKV]}
    elif fault == "wrong":
        tensors[PROJ + UP] = tensors[PROJ + UP].flip(0)
    else:
        del tensors[PROJ + UP]
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"the old one")
    with pytest.raises(CrucibleError, match=rf"not saved to .*x\.safetensors: 1 layer of .*{PROJ}.*deleted.*--to"):
        saved(path, layers, tensors)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]
