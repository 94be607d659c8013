"""Conversion of LoRAs from kohya's format to PEFT's."""

import pytest
import torch
from lora_crucible.formats.portable import Part, to_portable

QKV = [
    Part("transformer.blocks.0.attn.to_q", torch.arange(0, 3)),
    Part("transformer.blocks.0.attn.to_k", torch.arange(3, 6)),
    Part("transformer.blocks.0.attn.to_v", torch.arange(6, 9)),
]


def layer(name, outputs, alpha=1.0, **others):
    draw = torch.Generator().manual_seed(0)
    return {
        f"{name}.lora_down.weight": torch.randn(2, 5, generator=draw),
        f"{name}.lora_up.weight": torch.randn(outputs, 2, generator=draw),
        f"{name}.alpha": torch.tensor(alpha),
        **{f"{name}.{suffix}": tensor for suffix, tensor in others.items()},
    }


def change(file, name):
    return file[f"{name}.lora_B.weight"] @ file[f"{name}.lora_A.weight"]


def test_alpha_is_in_the_weights():
    """Programs that ignore alpha use a scale of one."""
    lora = layer("lora_unet_a", 4, alpha=0.5)
    file = to_portable(lora, {"lora_unet_a": [Part("diffusion_model.a")]})
    assert file.keys() == {"diffusion_model.a.lora_A.weight", "diffusion_model.a.lora_B.weight"}
    expected = 0.5 / 2 * lora["lora_unet_a.lora_up.weight"] @ lora["lora_unet_a.lora_down.weight"]
    torch.testing.assert_close(change(file, "diffusion_model.a"), expected)


def test_a_layer_without_alpha_has_scale_one():
    lora = layer("lora_unet_a", 4)
    del lora["lora_unet_a.alpha"]
    file = to_portable(lora, {"lora_unet_a": [Part("diffusion_model.a")]})
    assert torch.equal(file["diffusion_model.a.lora_B.weight"], lora["lora_unet_a.lora_up.weight"])


def test_a_fused_layer_is_cut_into_its_parts():
    lora = layer("lora_unet_qkv", 9)
    file = to_portable(lora, {"lora_unet_qkv": QKV})
    whole = 0.5 * lora["lora_unet_qkv.lora_up.weight"] @ lora["lora_unet_qkv.lora_down.weight"]
    assert len(file) == 6
    torch.testing.assert_close(torch.cat([change(file, part.name) for part in QKV]), whole)


def test_rows_come_in_the_order_of_the_file():
    lora = layer("lora_unet_mod", 4)
    swapped = Part("transformer.norm_out.linear", torch.tensor([2, 3, 0, 1]))
    file = to_portable(lora, {"lora_unet_mod": [swapped]})
    whole = 0.5 * lora["lora_unet_mod.lora_up.weight"] @ lora["lora_unet_mod.lora_down.weight"]
    torch.testing.assert_close(change(file, swapped.name), whole[[2, 3, 0, 1]])


def test_dora_scales_go_with_their_rows():
    scale = torch.arange(9.0)[:, None]
    file = to_portable(layer("lora_unet_qkv", 9, dora_scale=scale), {"lora_unet_qkv": QKV})
    assert [file[f"{part.name}.dora_scale"].flatten().tolist() for part in QKV] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_dora_scales_per_input_cannot_be_cut():
    lora = layer("lora_unet_qkv", 9, dora_scale=torch.ones(1, 5))
    with pytest.raises(ValueError, match=r"lora_unet_qkv .*per input \(1, 5\)"):
        to_portable(lora, {"lora_unet_qkv": QKV})
    whole = to_portable(lora, {"lora_unet_qkv": [Part("diffusion_model.qkv")]})
    assert whole["diffusion_model.qkv.dora_scale"].shape == (1, 5)


@pytest.mark.parametrize("suffixes", [("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), ("lokr_w1", "lokr_w2")])
def test_other_algorithms_keep_their_form(suffixes):
    lora = {f"lora_unet_qkv.{suffix}": torch.ones(2, 2) for suffix in (*suffixes, "alpha")}
    assert to_portable(lora, {"lora_unet_qkv": QKV}) == lora


def test_half_precision_stays():
    lora = {key: tensor.half() for key, tensor in layer("lora_unet_a", 4).items()}
    file = to_portable(lora, {"lora_unet_a": [Part("diffusion_model.a")]})
    assert {tensor.dtype for tensor in file.values()} == {torch.float16}
    assert torch.equal(file["diffusion_model.a.lora_B.weight"], lora["lora_unet_a.lora_up.weight"] / 2)
