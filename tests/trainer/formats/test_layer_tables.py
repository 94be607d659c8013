"""The tables of layers agree with diffusers' models of the published sizes."""

from __future__ import annotations

from functools import cache

import diffusers
import pytest
import torch
from accelerate import init_empty_weights
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.identify import candidates
from lora_crucible.formats.layer_tables.model_sizes import SIZES
from lora_crucible.formats.names import place_of

MODELS = {
    "sd3": ("SD3Transformer2DModel", {"num_layers": 24, "num_attention_heads": 24, "dual_attention_layers": (0, 1)}),
    "flux1": ("FluxTransformer2DModel", {"guidance_embeds": True}),
    "flux2": ("Flux2Transformer2DModel", {}),
    "chroma": ("ChromaTransformer2DModel", {}),
    "lumina2": ("Lumina2Transformer2DModel", {"cap_feat_dim": 2304}),
    "z_image": ("ZImageTransformer2DModel", {}),
    "qwen_image": ("QwenImageTransformer2DModel", {}),
    "auraflow": ("AuraFlowTransformer2DModel", {"num_attention_heads": 12}),
    "pixart_alpha": ("PixArtTransformer2DModel", {"sample_size": 128}),
    "pixart_sigma": ("PixArtTransformer2DModel", {"use_additional_conditions": False}),
    "hunyuan_dit": (
        "HunyuanDiT2DModel",
        {
            **{"hidden_size": 1408, "num_layers": 40, "mlp_ratio": 6144 / 1408, "attention_head_dim": 88},
            **{"in_channels": 4, "patch_size": 2, "sample_size": 128},
            "use_style_cond_and_image_meta_size": False,
        },
    ),
    "hidream": (
        "HiDreamImageTransformer2DModel",
        {
            **{
                "patch_size": 2,
                "in_channels": 16,
                "num_layers": 16,
                "num_single_layers": 32,
                "num_attention_heads": 20,
            },
            **{"caption_channels": [4096, 4096], "llama_layers": [*range(48)], "num_routed_experts": 4},
            **{"num_activated_experts": 2, "text_emb_dim": 2048},
        },
    ),
    "cosmos_predict2": ("CosmosTransformer3DModel", {"num_attention_heads": 16, "num_layers": 28}),
    "wan": ("WanTransformer3DModel", {}),
    "hunyuan_video": ("HunyuanVideoTransformer3DModel", {}),
    "ltxv": ("LTXVideoTransformer3DModel", {}),
}


@cache
def weights(architecture: str) -> dict[str, torch.Size]:
    kind, config = MODELS[architecture]
    with init_empty_weights():
        model = getattr(diffusers, kind)(**config)
    return {
        name.removesuffix(".weight"): tensor.shape
        for name, tensor in model.named_parameters()
        if name.endswith(".weight") and tensor.ndim >= 2
    }


def test_only_anima_is_unknown_to_diffusers():
    assert set(SIZES) - set(MODELS) == {"anima"}


@pytest.mark.parametrize("architecture", MODELS)
def test_every_matrix_of_diffusers_has_a_place_and_no_two_the_same(architecture):
    row = ARCHITECTURES[architecture]
    places = {name: place_of(f"transformer.{name}", row) for name in weights(architecture)}
    assert [name for name, place in places.items() if place is None] == []
    spans = [(place.key, place.first) for place in places.values()]
    assert len(set(spans)) == len(spans)


@pytest.mark.parametrize("architecture", MODELS)
def test_parts_are_as_large_as_the_table_says(architecture):
    row = ARCHITECTURES[architecture]
    totals: dict[str, int] = {}
    shapes = weights(architecture)
    for name, shape in shapes.items():
        key = place_of(f"transformer.{name}", row).key
        totals[key] = totals.get(key, 0) + shape[0]
    for name, shape in shapes.items():
        place = place_of(f"transformer.{name}", row)
        span = place.rows(totals[place.key])
        assert span.stop - span.start == shape[0], name


@pytest.mark.parametrize("architecture", MODELS)
def test_a_lora_on_all_layers_is_recognized_by_its_names_and_sizes(architecture):
    shapes = {}
    for name, shape in weights(architecture).items():
        if len(shape) == 2:
            shapes[f"transformer.{name}.lora_A.weight"] = (8, shape[1])
            shapes[f"transformer.{name}.lora_B.weight"] = (shape[0], 8)
    alike = {"pixart_alpha": {"pixart_sigma"}, "pixart_sigma": {"pixart_alpha"}, "cosmos_predict2": {"anima"}}
    found = {row.id for row in candidates(shapes, {})}
    assert architecture in found
    assert found <= {architecture, *alike.get(architecture, ())}
