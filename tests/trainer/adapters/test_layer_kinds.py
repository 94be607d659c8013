"""Attention and feed-forward layers are recognized in all architectures."""

import pytest
from lora_crucible.adapters.layer_kinds import is_attention, is_feed_forward

ATTENTION = [
    "input_blocks.4.1.transformer_blocks.0.attn2.to_out.0",  # SDXL
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",  # diffusers
    "joint_blocks.0.x_block.attn2.qkv",  # SD3.5
    "double_blocks.0.img_attn.qkv",  # Flux, HunyuanVideo
    "single_blocks.0.linear1",
    "single_blocks.0.linear2",
    "noise_refiner.0.attention.qkv",  # Z-Image
    "transformer_blocks.0.attn.add_q_proj",  # Qwen-Image
    "double_layers.0.attn.w2q",  # AuraFlow
    "blocks.0.cross_attn.kv_linear",  # PixArt
    "blocks.0.attn1.Wqkv",  # Hunyuan-DiT
    "double_stream_blocks.0.block.attn1.to_q_t",  # HiDream
    "blocks.0.self_attn.o",  # Wan
]
FEED_FORWARD = [
    "input_blocks.4.1.transformer_blocks.0.ff.net.0.proj",
    "joint_blocks.0.context_block.mlp.fc1",
    "double_blocks.0.txt_mlp.2",
    "layers.0.feed_forward.w3",
    "transformer_blocks.0.img_mlp.net.2",
    "double_layers.0.mlpX.c_proj",
    "single_layers.0.mlp.c_fc1",
    "double_stream_blocks.0.block.ff_i.experts.3.w2",
    "double_stream_blocks.0.block.ff_t.w1",
    "blocks.0.mlp.layer1",  # Cosmos-Predict2, Anima
    "blocks.0.ffn.0",
]
NEITHER = [
    "t_embedder.mlp.0",
    "csize_embedder.mlp.2",
    "time_text_embed.timestep_embedder.linear_1",
    "double_blocks.0.img_mod.lin",
    "joint_blocks.0.x_block.adaLN_modulation.1",
    "blocks.0.adaln_modulation_self_attn.1",
    "blocks.0.adaln_modulation_mlp.2",
    "txt_in.individual_token_refiner.blocks.0.self_attn.qkv",
    "llm_adapter.blocks.0.mlp.0",
    "distilled_guidance_layer.layers.0.in_layer",
    "input_blocks.4.1.proj_in",
    "down_blocks.0.attentions.0.proj_in",
]


@pytest.mark.parametrize("path", ATTENTION)
def test_attention(path):
    assert is_attention(path)
    assert not is_feed_forward(path)


@pytest.mark.parametrize("path", FEED_FORWARD)
def test_feed_forward(path):
    assert is_feed_forward(path)
    assert not is_attention(path)


@pytest.mark.parametrize("path", NEITHER)
def test_neither(path):
    assert not is_attention(path)
    assert not is_feed_forward(path)
