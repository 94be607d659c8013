import pytest
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.layer_names import diffusers_unet_to_sgm, file_key, kohya_key

SD15, SDXL, FLUX = (ARCHITECTURES[name] for name in ("sd15", "sdxl", "flux1"))


def test_sd15_has_kohyas_diffusers_names():
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    assert file_key(SD15, path) == key
    path = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    assert file_key(SD15, path) == "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0"


def test_sdxl_has_kohyas_sgm_names():
    path = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    assert file_key(SDXL, path) == "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    path = "up_blocks.1.attentions.2.transformer_blocks.1.ff.net.0.proj"
    assert file_key(SDXL, path) == "lora_unet_output_blocks_5_1_transformer_blocks_1_ff_net_0_proj"


def test_flux_keeps_native_names_and_has_no_rule_for_diffusers_ones():
    assert kohya_key("double_blocks.0.img_attn.qkv") == "lora_unet_double_blocks_0_img_attn_qkv"
    with pytest.raises(ValueError, match=r"transformer_blocks\.0\.attn\.to_q.*Flux\.1"):
        file_key(FLUX, "transformer_blocks.0.attn.to_q")


@pytest.mark.parametrize(
    ("diffusers_name", "sgm_name"),
    [
        ("conv_in", "input_blocks.0.0"),
        ("conv_out", "out.2"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"),
        ("down_blocks.0.resnets.1.conv1", "input_blocks.2.0.in_layers.2"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("down_blocks.2.resnets.0.conv_shortcut", "input_blocks.7.0.skip_connection"),
        ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
        ("mid_block.attentions.0.proj_in", "middle_block.1.proj_in"),
        ("up_blocks.2.resnets.2.conv2", "output_blocks.8.0.out_layers.3"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
    ],
)
def test_every_kind_of_layer(diffusers_name, sgm_name):
    assert diffusers_unet_to_sgm(diffusers_name, layers_per_block=2) == sgm_name


def test_an_upsampler_follows_the_last_layer_of_its_block():
    assert diffusers_unet_to_sgm("up_blocks.0.upsamplers.0.conv", 2, (1, 2, 3)) == "output_blocks.2.1.conv"
    assert diffusers_unet_to_sgm("up_blocks.1.upsamplers.0.conv", 2, (1, 2, 3)) == "output_blocks.5.2.conv"


def test_block_numbers_follow_the_layers_per_block():
    assert diffusers_unet_to_sgm("down_blocks.3.resnets.0.conv1", 1) == "input_blocks.7.0.in_layers.2"
    assert diffusers_unet_to_sgm("up_blocks.5.attentions.1.norm", 3) == "output_blocks.21.1.norm"


@pytest.mark.parametrize(
    "path",
    [
        "transformer_blocks.0.attn1.to_q",
        "down_blocks.0.resnets.0.conv3",
        "down_blocks.0.resnets.0.conv1.extra",
        "down_blocks.0.motion_modules.0.proj_in",
        "mid_block.downsamplers.0.conv",
    ],
)
def test_an_unknown_layer_is_named(path):
    with pytest.raises(ValueError, match=path.replace(".", r"\.")):
        diffusers_unet_to_sgm(path, layers_per_block=2)
