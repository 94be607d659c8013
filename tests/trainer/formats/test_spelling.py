"""Layers are found by their names, whatever path, wrapper and separator their trainer wrote."""

from __future__ import annotations

import pytest
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.names import place_of
from lora_crucible.formats.spelling import flat, names_text_encoder

PREFIXES = (
    *(
        "transformer.",
        "diffusion_model.",
        "model.diffusion_model.",
        "base_model.model.",
        "base_model.model.transformer.",
    ),
    *("pipe.dit.", "pipe.transformer.", "pipeline.transformer.", "dit.", "denoiser.", "model.", "net.", "module.", ""),
    *(
        "_orig_mod.",
        "transformer._orig_mod.",
        "module._orig_mod.",
        "student.",
        "generator.model.",
        "my_model.",
        "dit2.",
    ),
)
KOHYA_PREFIXES = ("lora_unet_", "lora_unet__", "lora_transformer_", "lora_dit_", "lycoris_", "lora_unet_pipe_dit_")

LAYERS = {
    "wan": ("blocks.3.self_attn.q", "blocks.3.ffn.0", "patch_embedding"),
    "qwen_image": ("transformer_blocks.3.attn.to_q", "transformer_blocks.3.img_mlp.net.0.proj", "img_in"),
    "flux1": ("single_blocks.3.linear1", "single_transformer_blocks.3.attn.to_k", "double_blocks.3.img_attn.qkv"),
    "z_image": ("layers.3.attention.qkv", "noise_refiner.1.attention.to_q", "cap_embedder.1"),
    "sdxl": ("input_blocks.4.1.transformer_blocks.0.attn2.to_k", "down_blocks.1.attentions.0.proj_in"),
    "ltxv": ("transformer_blocks.3.attn1.to_q", "proj_in"),
}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("architecture", "layer"), [(id, layer) for id, layers in LAYERS.items() for layer in layers])
def test_any_path_of_the_model(architecture, layer, prefix):
    row = ARCHITECTURES[architecture]
    assert place_of(prefix + layer, row) == place_of(layer, row) is not None


@pytest.mark.parametrize("prefix", KOHYA_PREFIXES)
@pytest.mark.parametrize(("architecture", "layer"), [(id, layer) for id, layers in LAYERS.items() for layer in layers])
def test_paths_with_underscores(architecture, layer, prefix):
    row = ARCHITECTURES[architecture]
    assert place_of(prefix + layer.replace(".", "_"), row) == place_of(layer, row)


@pytest.mark.parametrize(
    "layer",
    ["blocks.0._orig_mod.self_attn.q", "blocks.0.self_attn.q.base_layer", "blocks.0._fsdp_wrapped_module.self_attn.q"],
)
def test_wrappers_in_between(layer):
    assert place_of(f"transformer.{layer}", ARCHITECTURES["wan"]) == place_of(
        "blocks.0.self_attn.q", ARCHITECTURES["wan"]
    )


@pytest.mark.parametrize(
    "name",
    ["text_encoder.blocks.3.self_attn.q", "vae.decoder.blocks.3.self_attn.q", "control_net.blocks.3.self_attn.q"],
)
def test_models_of_their_own_are_no_path(name):
    assert place_of(name, ARCHITECTURES["wan"]) is None


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", "te1:text_model_encoder_layers_0_mlp_fc1"),
        ("lora_te2_text_projection", "te2:text_projection"),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", "te2:text_model_encoder_layers_0_mlp_fc1"),
        ("text_encoder.text_model.encoder.layers.0.self_attn.to_q", "te1:text_model_encoder_layers_0_self_attn_q_proj"),
        ("lora_te1.text_model.encoder.layers.0.mlp.fc1", "te1:text_model_encoder_layers_0_mlp_fc1"),
        (
            "text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1",
            "te2:text_model_encoder_layers_0_mlp_fc1",
        ),
        ("base_model.model.text_model.encoder.layers.0.mlp.fc1", "te1:text_model_encoder_layers_0_mlp_fc1"),
        ("pipe.text_encoder.text_model.encoder.layers.0.mlp.fc1", "te1:text_model_encoder_layers_0_mlp_fc1"),
    ],
)
def test_text_encoders(name, spelling):
    assert names_text_encoder(name)
    assert flat(name) == spelling


@pytest.mark.parametrize("name", ["lora_unet_txt_in", "transformer.context_embedder", "lora_unet_text_embedding_0"])
def test_layers_beside_text_encoders(name):
    assert not names_text_encoder(name)
