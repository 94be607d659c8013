"""Layers that some trainers write in a way of their own: XLabs, PEFT's DoRA and biases, control LoRAs, modulations."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.adapter_keys import is_adapter_key, split_key
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.delta import delta_weight
from lora_crucible.formats.forms import to_form
from lora_crucible.formats.lora_file import ALPHA, BIAS, DOWN, MAGNITUDE, RESHAPE, SET, UP
from lora_crucible.formats.names import place_of
from lora_crucible.formats.universal import read_layers, with_wider_input
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from torch import nn

FLUX, SD15, WAN = (ARCHITECTURES[name] for name in ("flux1", "sd15", "wan"))
QKV, LINEAR1 = "lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_single_blocks_0_linear1"
PARTS = [f"transformer.transformer_blocks.0.attn.{part}" for part in ("to_q", "to_k", "to_v")]
QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def read(file, architecture):
    return read_layers(file, partial(place_of, architecture=architecture))


def pair(name, out=8, inputs=8, suffixes=(".lora_A.weight", ".lora_B.weight")):
    return {name + suffixes[0]: torch.randn(2, inputs), name + suffixes[1]: torch.randn(out, 2)}


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "transformer."])
def test_xlabs(prefix):
    ends = (".down.weight", ".up.weight")
    file = {}
    for name, out in (("qkv_lora1", 24), ("proj_lora1", 8), ("qkv_lora2", 24), ("proj_lora2", 8)):
        file |= pair(f"{prefix}double_blocks.0.processor.{name}", out, 8, ends)
    file |= pair(f"{prefix}single_blocks.0.processor.qkv_lora", 24, 8, ends)
    file |= pair(f"{prefix}single_blocks.0.processor.proj_lora", 8, 40, ends)
    assert all(map(is_adapter_key, file))
    found = read(file, FLUX).layers
    img, txt = "lora_unet_double_blocks_0_img_attn_", "lora_unet_double_blocks_0_txt_attn_"
    assert found.keys() == {f"{img}qkv", f"{img}proj", f"{txt}qkv", f"{txt}proj", LINEAR1, LINEAR1[:-1] + "2"}
    name = f"{prefix}single_blocks.0.processor.qkv_lora"
    whole = delta_weight(found[LINEAR1])
    assert whole.shape == (56, 8)
    torch.testing.assert_close(whole[:24], file[f"{name}.up.weight"] @ file[f"{name}.down.weight"])
    assert not whole[24:].any()
    name = f"{prefix}double_blocks.0.processor.qkv_lora2"
    torch.testing.assert_close(
        delta_weight(found[f"{txt}qkv"]), file[f"{name}.up.weight"] @ file[f"{name}.down.weight"]
    )


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(6, 8), nn.Conv2d(4, 8, 3)


@pytest.mark.parametrize("layer", ["linear", "conv"])
@pytest.mark.parametrize("how", [{"use_dora": True}, {"lora_bias": True}])
def test_pefts_layers_do_what_peft_does(layer, how):
    base = TwoLayers()
    before = {name: tensor.clone() for name, tensor in getattr(base, layer).named_parameters()}
    config = LoraConfig(r=2, lora_alpha=2, target_modules=[layer], init_lora_weights=False, **how)
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "magnitude" in name or "lora_B" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    file = {key: tensor.clone() for key, tensor in get_peft_model_state_dict(model).items()}
    ((_, adapter),) = read_layers(file, lambda name: None).layers.items()
    merged = getattr(model.merge_and_unload(), layer)
    delta = delta_weight(adapter, before["weight"])
    torch.testing.assert_close(before["weight"] + delta, merged.weight, rtol=1e-5, atol=1e-6)
    bias = adapter.get(BIAS, torch.zeros(8))
    torch.testing.assert_close(before["bias"] + bias, merged.bias, rtol=1e-5, atol=1e-6)


def test_a_bias_is_scaled_like_its_lora():
    name = "diffusion_model.blocks.0.self_attn.q"
    file = pair(name) | {f"{name}.lora_B.bias": torch.ones(8), f"{name}.alpha": torch.tensor(4.0)}
    (layer,) = read(file, WAN).layers.values()
    assert layer[BIAS].equal(torch.full((8,), 2.0))
    with pytest.raises(CrucibleError, match="twice"):
        read(file | {f"{name}.diff_b": torch.ones(8)}, WAN)


def dora(part):
    return pair(part) | {f"{part}.lora_magnitude_vector": torch.rand(8) + 0.5}


@pytest.mark.parametrize("also_plain", [[], PARTS[1:2]])
def test_a_dora_of_peft_in_some_parts(also_plain):
    """Rows without a magnitude are those of a plain LoRA, or unchanged."""
    file = dora(PARTS[0]) | {key: tensor for part in also_plain for key, tensor in pair(part).items()}
    lora, weight = read(file, FLUX), torch.randn(24, 8)
    changed = weight + delta_weight({key: lora.layers[QKV][key] for key in (DOWN, UP, ALPHA)})
    scaled = file[f"{PARTS[0]}.lora_magnitude_vector"][:, None] * changed[:8] / changed[:8].norm(dim=1, keepdim=True)
    delta = delta_weight(lora.layers[QKV], weight)
    torch.testing.assert_close(weight + delta, torch.cat([scaled, changed[8:]]))
    for form, start in (("diffusers", "transformer."), ("peft", "base_model.model.")):
        again = {key.replace(start, "transformer."): one for key, one in to_form(lora, FLUX, form).items()}
        for key, tensor in file.items():
            torch.testing.assert_close(again[key], tensor)
        assert [key for key in again if "magnitude" in key] == [f"{PARTS[0]}.lora_magnitude_vector"]


@pytest.mark.parametrize("form", ["auto", "kohya", "comfyui"])
def test_a_dora_of_peft_has_no_place_elsewhere(form):
    with pytest.raises(CrucibleError, match=rf"DoRA in PEFT's form \({QKV}\).*--base MODEL.*--to diffusers"):
        to_form(read(dora(PARTS[0]), FLUX), FLUX, form)


def test_a_magnitude_of_another_size():
    file = dora(PARTS[0]) | {f"{PARTS[0]}.lora_magnitude_vector": torch.ones(7)}
    with pytest.raises(CrucibleError, match=r"to_q is broken"):
        read(file, FLUX)


def test_biases_of_parts_are_joined_and_cut_again():
    file = {key: tensor for part in PARTS[:2] for key, tensor in pair(part).items()}
    file |= {f"{PARTS[0]}.lora_B.bias": torch.randn(8)}
    lora = read(file, FLUX)
    assert lora.layers[QKV][BIAS].equal(torch.cat([file[f"{PARTS[0]}.lora_B.bias"], torch.zeros(16)]))
    again = to_form(lora, FLUX, "diffusers")
    assert {key for key in again if key.endswith("bias")} == {f"{part}.lora_B.bias" for part in PARTS}
    assert again[f"{PARTS[0]}.lora_B.bias"].equal(file[f"{PARTS[0]}.lora_B.bias"])
    assert f"{QKV}.diff_b" in to_form(lora, FLUX, "kohya")


def test_a_bias_without_a_lora_has_no_place_in_diffusers():
    lora = read({"diffusion_model.time_projection.1.diff_b": torch.ones(8)}, WAN)
    assert to_form(lora, WAN, "auto").keys() == {"lora_unet_time_projection_1.diff_b"}
    with pytest.raises(CrucibleError, match=r"bias differences: lora_unet_time_projection_1.*--to comfyui") as error:
        to_form(lora, WAN, "diffusers")
    assert "resize" not in str(error.value)


def test_a_control_lora_of_black_forest_labs():
    file = pair("img_in", 8, 128) | pair("double_blocks.0.img_attn.proj") | {"img_in.lora_B.bias": torch.ones(8)}
    file |= {"double_blocks.0.img_attn.norm.key_norm.scale": torch.rand(4)}
    lora = read(file, FLUX)
    assert not lora.leftover
    assert lora.layers["lora_unet_img_in"][RESHAPE].tolist() == [8, 128]
    assert lora.layers["lora_unet_double_blocks_0_img_attn_norm_key_norm"].keys() == {SET}
    for form in ("auto", "kohya", "comfyui"):
        written = to_form(lora, FLUX, form, torch.float16)
        assert written["lora_unet_img_in.reshape_weight"].equal(torch.tensor([8, 128]))
        assert written["diffusion_model.double_blocks.0.img_attn.norm.key_norm.set_weight"].dtype == torch.float16
    with pytest.raises(CrucibleError, match="whole weights that replace"):
        to_form(lora, FLUX, "diffusers")


def test_the_norms_of_a_checkpoint_are_no_lora():
    assert not is_adapter_key("double_blocks.0.img_attn.norm.key_norm.scale")


@pytest.mark.parametrize(("inputs", "wider"), [(128, True), (64, False)])
def test_a_control_lora_of_diffusers_says_its_size(inputs, wider):
    lora = with_wider_input(read(pair("transformer.x_embedder", 8, inputs), FLUX), FLUX)
    assert (RESHAPE in lora.layers["lora_unet_img_in"]) == wider
    assert not any("reshape" in key for key in to_form(lora, FLUX, "diffusers"))


@pytest.mark.parametrize("name", ["diffusion_model.blocks.7", "blocks.7", "lora_unet_blocks_7"])
def test_a_modulation(name):
    lora = read({f"{name}.diff_m": torch.ones(1, 6, 8)}, WAN)
    for form in ("auto", "kohya", "comfyui"):
        assert to_form(lora, WAN, form).keys() == {"diffusion_model.blocks.7.modulation.diff"}
    with pytest.raises(CrucibleError, match=r"full differences: .*no place"):
        to_form(lora, WAN, "diffusers")


def test_differences_of_zero_do_not_keep_a_file_from_diffusers():
    """Files extracted from a model have them for its norms."""
    name = "text_encoders.clip_l.transformer.text_model.encoder.layers.0.layer_norm1"
    lora = read(pair(PARTS[0]) | {f"{name}.diff": torch.zeros(8), f"{name}.diff_b": torch.zeros(8)}, FLUX)
    assert not any("norm" in key for key in to_form(lora, FLUX, "diffusers"))
    assert len(lora.layers) == 2


def test_oft_of_kohya_has_its_limit_for_each_output():
    blocks = torch.randn(4, 2, 2)
    lora = read({f"oft_unet_{QUERY[10:]}.oft_blocks": blocks, f"oft_unet_{QUERY[10:]}.alpha": torch.tensor(0.5)}, SD15)
    assert lora.layers.keys() == {QUERY}
    assert float(lora.layers[QUERY][ALPHA]) == 4
    assert split_key("oft_unet_x.alpha") == ("lora_unet_x", "alpha")


def test_an_alpha_alone_is_no_layer():
    lora = read(pair(QUERY) | {"lora_unet_conv_in.alpha": torch.tensor(float("inf"))}, SD15)
    assert lora.layers.keys() == {QUERY}


def test_an_alpha_that_does_not_count_is_one():
    whole = {f"{QUERY}.lokr_w1": torch.ones(2, 2), f"{QUERY}.lokr_w2": torch.ones(2, 2)}
    lora = read(whole | {f"{QUERY}.alpha": torch.tensor(float("inf"))}, SD15)
    assert to_form(lora, SD15, "kohya", torch.float16)[f"{QUERY}.alpha"] == 1


def test_a_norms_bias_alone_is_a_bias():
    """ComfyUI only reads b_norm together with w_norm."""
    assert read({f"{QUERY}.b_norm": torch.ones(8)}, SD15).layers[QUERY].keys() == {BIAS}


def test_a_middle_factor_is_multiplied_in_for_diffusers():
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    file = {f"{name}.lora_down.weight": torch.randn(2, 8, 1, 1), f"{name}.lora_mid.weight": torch.randn(2, 2, 3, 3)}
    lora = read(file | {f"{name}.lora_up.weight": torch.randn(8, 2, 1, 1)}, SD15)
    written = to_form(lora, SD15, "diffusers")
    assert {key.partition(".lora_")[0] for key in written} == {"unet.down_blocks.0.resnets.0.conv1"}
    torch.testing.assert_close(delta_weight(read(written, SD15).layers[name]), delta_weight(lora.layers[name]))
    assert f"{name}.lora_mid.weight" in to_form(lora, SD15, "kohya")


@pytest.mark.parametrize(
    ("suffixes", "todo"),
    [
        ({".lokr_w1": (2, 2), ".lokr_w2": (4, 4)}, "trainer resize FILE"),
        ({".diff": (8, 8)}, "trainer resize FILE"),
        ({".diff": (8,)}, "--to comfyui"),
        ({DOWN: (2, 8), UP: (8, 2), ".dora_scale": (8, 1)}, "merge FILE --base MODEL"),
        ({".oft_blocks": (2, 4, 4)}, "--to comfyui"),
    ],
)
def test_the_advice_leads_somewhere(suffixes, todo):
    lora = read({QUERY + suffix: torch.ones(shape) for suffix, shape in suffixes.items()}, SD15)
    with pytest.raises(CrucibleError, match="PEFT has no place for it") as error:
        to_form(lora, SD15, "peft")
    ways = ("trainer resize FILE", "merge FILE --base MODEL", "--to comfyui")
    assert [way for way in ways if way in str(error.value)] == [todo]


def test_magnitudes_may_be_nan_but_not_infinite():
    lora = read(dora(PARTS[0]), FLUX)
    lora.layers[QKV][MAGNITUDE][0] = torch.inf
    with pytest.raises(CrucibleError, match="NaN or infinite"):
        to_form(lora, FLUX, "diffusers")
