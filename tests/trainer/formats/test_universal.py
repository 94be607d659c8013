"""LoRA files from other trainers as layers: what is joined, what stays unchanged, and what is refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.delta import delta_weight, kind_of
from lora_crucible.formats.forms import to_form
from lora_crucible.formats.lora_file import ALPHA, DORA_SCALE, DOWN, UP
from lora_crucible.formats.names import place_of
from lora_crucible.formats.universal import read_layers

NAMES = ("flux1", "sd15", "unknown", "wan")
FLUX, SD15, UNKNOWN, WAN = (ARCHITECTURES[name] for name in NAMES)
QKV = "lora_unet_double_blocks_0_img_attn_qkv"
PARTS = [f"transformer.transformer_blocks.0.attn.{part}" for part in ("to_q", "to_k", "to_v")]
QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def read(file, architecture):
    return read_layers(file, partial(place_of, architecture=architecture))


def peft(name, out=8, rank=2):
    return {f"{name}.lora_A.weight": torch.randn(rank, 8), f"{name}.lora_B.weight": torch.randn(out, rank)}


def rows(file, name):
    return file[f"{name}.lora_B.weight"] @ file[f"{name}.lora_A.weight"]


def test_a_layer_in_parts_is_joined_and_cut_again():
    file = {key: tensor for rank, part in enumerate(PARTS, start=1) for key, tensor in peft(part, rank=rank).items()}
    lora = read(file, FLUX)
    assert lora.layers.keys() == {QKV}
    torch.testing.assert_close(delta_weight(lora.layers[QKV]), torch.cat([rows(file, part) for part in PARTS]))
    again = to_form(lora, FLUX, "diffusers")
    assert again.keys() == file.keys()
    for part in PARTS:
        assert again[f"{part}.lora_A.weight"].shape == file[f"{part}.lora_A.weight"].shape
        torch.testing.assert_close(rows(again, part), rows(file, part))


def test_missing_parts_are_zero():
    file = peft(PARTS[1])
    whole = delta_weight(read(file, FLUX).layers[QKV])
    torch.testing.assert_close(whole[8:16], rows(file, PARTS[1]))
    assert not whole[:8].any()
    assert not whole[16:].any()


def test_parts_with_one_first_factor_keep_its_rank():
    shared = torch.randn(2, 8)
    file = {f"{part}.lora_B.weight": torch.randn(8, 2) for part in PARTS}
    file |= {f"{part}.lora_A.weight": shared for part in PARTS}
    assert read(file, FLUX).layers[QKV][DOWN].equal(shared)


def test_cores_save_lora_with_biases():
    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    file = {f"{name}{DOWN}": torch.randn(2, 8), f"{name}{UP}": torch.randn(8, 2), f"{name}.diff_b": torch.randn(8)}
    lora = read(file, SD15)
    assert kind_of(lora.layers[QUERY]) == "lora"
    assert to_form(lora, SD15, "kohya")[f"{QUERY}.diff_b"].equal(file[f"{name}.diff_b"])


def test_text_encoders_without_a_table_stay_as_they_are():
    """OneTrainer writes such layers for Flux's T5."""
    name = "lora_te2_encoder_block_0_layer_0_SelfAttention_q"
    file = {f"{name}{DOWN}": torch.randn(2, 8), f"{name}{UP}": torch.randn(8, 2)}
    assert to_form(read(file, FLUX), FLUX, "kohya").keys() == file.keys()


def test_an_architecture_without_a_table_keeps_the_names_that_it_has():
    dotted = "diffusion_model.new_blocks.0.attn1.to_q"
    lora = read(peft(dotted), UNKNOWN)
    assert lora.layers.keys() == {"lora_unet_new_blocks_0_attn1_to_q"}
    for form in ("auto", "comfyui"):
        assert to_form(lora, UNKNOWN, form).keys() == peft(dotted).keys()
    flat = to_form(lora, UNKNOWN, "kohya")
    assert to_form(read(flat, UNKNOWN), UNKNOWN, "auto").keys() == flat.keys()
    for file in (flat, peft(dotted)):
        with pytest.raises(CrucibleError, match="no known name in the diffusers format for an unrecognized"):
            to_form(read(file, UNKNOWN), UNKNOWN, "diffusers")


def test_names_of_diffusers_that_have_no_table_are_not_made_kohyas():
    """No program would know them by kohya's names."""
    dotted = "transformer.double_layers.0.attn.to_q"
    lora = read(peft(dotted), UNKNOWN)
    assert to_form(lora, UNKNOWN, "auto").keys() == peft(dotted).keys()
    with pytest.raises(CrucibleError, match="no known name in the kohya format for an unrecognized"):
        to_form(lora, UNKNOWN, "kohya")


def test_what_is_no_part_of_an_adapter_is_named():
    lora = read(peft(PARTS[0]) | {"bundle_emb.word.string_to_param.*": torch.ones(1)}, FLUX)
    assert lora.leftover == ["bundle_emb.word.string_to_param.*"]


@pytest.mark.parametrize(
    "other", [f"{QKV}.lora_down.weight", "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight"]
)
def test_weights_that_are_there_twice(other):
    file = peft(PARTS[0]) | {
        other: torch.randn(2, 8),
        other.replace("down", "up").replace("_A", "_B"): torch.randn(24, 2),
    }
    with pytest.raises(CrucibleError, match=f"weights of {QKV} twice"):
        read(file, FLUX)


@pytest.mark.parametrize(
    "broken",
    [
        {f"{QUERY}{DOWN}": (2, 8)},
        {f"{QUERY}{DOWN}": (2, 8), f"{QUERY}{UP}": (8, 3)},
        {f"{QUERY}.hada_w1_a": (8, 2), f"{QUERY}.hada_w1_b": (2, 8)},
        {f"{QUERY}.lokr_w1": (2, 2), f"{QUERY}.lokr_w2_a": (4, 2)},
    ],
)
def test_a_layer_of_which_a_part_is_missing(broken):
    with pytest.raises(CrucibleError, match=f"{QUERY} is broken: its tensors .*one is missing"):
        read({key: torch.zeros(shape) for key, shape in broken.items()}, SD15)


def test_numbers_of_one_byte_in_parts():
    file = {key: tensor.to(torch.float8_e4m3fn) for part in PARTS for key, tensor in peft(part).items()}
    whole = delta_weight(read(file, FLUX).layers[QKV])
    expected = torch.cat([rows({key: tensor.float() for key, tensor in file.items()}, part) for part in PARTS])
    torch.testing.assert_close(whole, expected, rtol=1e-2, atol=1e-2)


def test_pefts_file_of_a_text_encoder():
    name = "base_model.model.text_model.encoder.layers.0.self_attn.q_proj"
    assert read(peft(name), SD15).layers.keys() == {"lora_te_text_model_encoder_layers_0_self_attn_q_proj"}


def test_a_difference_of_what_is_no_weight_keeps_its_name():
    """ComfyUI only knows it by this name."""
    key = "diffusion_model.blocks.0.modulation.diff"
    for form in ("auto", "kohya", "comfyui"):
        assert to_form(read({key: torch.ones(6)}, WAN), WAN, form).keys() == {key}


def test_the_same_layer_by_two_suffixes():
    file = peft(PARTS[0]) | {f"{PARTS[0]}.lora_down.weight": torch.randn(2, 8)}
    with pytest.raises(CrucibleError, match="twice"):
        read(file, FLUX)


def test_a_dora_of_which_parts_are_missing():
    file = peft(PARTS[0]) | {f"{PARTS[0]}.dora_scale": torch.ones(8, 1)}
    with pytest.raises(CrucibleError, match=f"{QKV} is stored in parts .DoRA.*base model"):
        read(file, FLUX)


def test_a_dora_in_parts():
    file = {key: tensor for part in PARTS for key, tensor in peft(part).items()}
    file |= {f"{part}.dora_scale": torch.rand(8, 1) for part in PARTS}
    layer = read(file, FLUX).layers[QKV]
    assert layer[DORA_SCALE].equal(torch.cat([file[f"{part}.dora_scale"] for part in PARTS]))


@pytest.mark.parametrize(
    ("suffixes", "kind"),
    [
        ([DOWN, UP, ALPHA], "lora"),
        ([DOWN, UP, ".lora_mid.weight", ".diff_b"], "lora"),
        ([DOWN, UP, DORA_SCALE], "dora"),
        ([".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b", ALPHA], "loha"),
        ([".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b", DORA_SCALE], "other"),
        ([".lokr_w1", ".lokr_w2_a", ".lokr_w2_b"], "lokr"),
        ([".diff", ".diff_b"], "diff"),
        ([".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight"], "other"),
        ([".oft_blocks"], "other"),
        ([DOWN, UP, ".lora_magnitude_vector"], "dora"),
        ([DOWN, UP, ".reshape_weight", ALPHA], "lora"),
        ([DOWN, UP, ".diff"], "other"),
        ([".set_weight"], "other"),
    ],
)
def test_kinds(suffixes, kind):
    assert kind_of(suffixes) == kind
