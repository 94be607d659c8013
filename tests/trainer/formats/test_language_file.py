"""LoRAs of language models: recognized, named and converted."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.delta import delta_weight
from lora_crucible.formats.forms import to_form
from lora_crucible.formats.identify import candidates, identify
from lora_crucible.formats.language_names import language_path
from lora_crucible.formats.layer_names import is_of_language_model, is_of_text_encoder, language_key
from lora_crucible.formats.lora_file import lora_layer
from lora_crucible.formats.lora_info import lora_info
from lora_crucible.formats.names import place_of
from lora_crucible.formats.peft_scale import with_alphas
from lora_crucible.formats.universal import Layers, read_layers

LANGUAGE = ARCHITECTURES["language"]
QUERY, UP_PROJ = "model.layers.0.self_attn.q_proj", "model.layers.11.mlp.up_proj"


def layers() -> Layers:
    torch.manual_seed(0)
    found = {path: lora_layer(torch.randn(4, 8), torch.randn(16, 4), 6) for path in (QUERY, UP_PROJ)}
    return Layers({language_key(path): layer for path, layer in found.items()})


def read(tensors: dict[str, torch.Tensor]) -> Layers:
    return read_layers(tensors, partial(place_of, architecture=LANGUAGE))


def shapes(*keys: str, outputs: int = 16, inputs: int = 8) -> dict[str, tuple[int, ...]]:
    return {
        name: shape
        for key in keys
        for name, shape in ((f"{key}.lora_A.weight", (4, inputs)), (f"{key}.lora_B.weight", (outputs, 4)))
    }


@pytest.mark.parametrize(
    "name",
    [
        QUERY,
        f"base_model.model.{QUERY}",
        f"text_encoders.transformer.{QUERY}",
        f"text_encoders.qwen3_06b.transformer.{QUERY}",
        "base_model.model.model._orig_mod.layers.0.self_attn.q_proj",
        "base_model.model._orig_mod.model.layers.0.self_attn.q_proj",
        "lora_te_model_layers_0_self_attn_q_proj",
        "lora_te_layers_0_self_attn_q_proj",
    ],
)
def test_all_names_of_a_layer_have_one_path(name: str):
    assert language_path(name) == QUERY


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("base_model.model.lm_head", "lm_head"),
        ("base_model.model.transformer.h.3.attn.c_attn", "transformer.h.3.attn.c_attn"),
        ("base_model.model.model.language_model.layers.1.mlp.gate_proj", "model.language_model.layers.1.mlp.gate_proj"),
        ("base_model.model.gpt_neox.layers.1.attention.dense", "gpt_neox.layers.1.attention.dense"),
        ("lora_te_layers_2_mlp_gate_up_proj", "model.layers.2.mlp.gate_up_proj"),
        ("lora_te_layers_2_linear_attn_in_proj_qkv", "model.layers.2.linear_attn.in_proj_qkv"),
    ],
)
def test_paths_of_other_models(name: str, path: str):
    assert language_path(name) == path


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_layers_0_attention_qkv",
        "transformer.blocks.0.attn1.to_q",
        "diffusion_model.layers.0.attention.qkv",
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1",
        "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q",
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        "base_model.model.layers.0.cross_attn.q_proj",
    ],
)
def test_layers_of_image_models_are_none_of_a_language_model(name: str):
    assert language_path(name) is None


def test_a_language_model_is_no_text_encoder_of_another_model():
    key = language_key(QUERY)
    assert (is_of_language_model(key), is_of_text_encoder(key)) == (True, False)
    for other in ("lora_te_text_model_encoder_layers_0_mlp_fc1", "lora_te1_text_projection", "lora_te_layers_0_x"):
        assert (is_of_language_model(other), is_of_text_encoder(other)) == (False, True)


@pytest.mark.parametrize("start", ["base_model.model.", "text_encoders.transformer.", ""])
def test_a_file_is_recognized_by_its_layers(start: str):
    assert identify(shapes(f"{start}{QUERY}", f"{start}{UP_PROJ}"), {}) == LANGUAGE


def test_a_file_with_layers_of_an_image_model_is_none():
    both = shapes(f"text_encoders.qwen3_4b.transformer.{QUERY}") | shapes("diffusion_model.layers.0.attention.qkv")
    assert LANGUAGE not in candidates(both, {})


def test_the_layers_that_see_pictures_belong_to_the_language_model():
    vision = shapes("base_model.model.model.visual.blocks.0.attn.qkv")
    assert identify(shapes(f"base_model.model.{QUERY}") | vision, {}) == LANGUAGE
    assert LANGUAGE not in candidates(vision, {})


def test_kohyas_names_can_be_those_of_animas_text_encoder():
    of_anima = shapes("lora_te_layers_0_self_attn_q_proj", outputs=2048, inputs=1024)
    assert {row.id for row in candidates(of_anima, {})} == {"language", "anima"}
    assert identify(of_anima, {"ss_base_model_version": "anima"}) == ARCHITECTURES["anima"]
    assert identify(shapes("lora_te_layers_0_self_attn_q_proj", inputs=2560), {}) == LANGUAGE


def test_its_facts_say_what_it_is_for():
    tensors = {key: torch.ones(shape) for key, shape in shapes(f"base_model.model.{QUERY}").items()}
    assert "Made for: a language model" in lora_info(tensors, "writer.safetensors", {}).text()


@pytest.mark.parametrize("form", ["auto", "comfyui", "peft"])
def test_forms_do_the_same(form):
    lora = layers()
    start = "base_model.model." if form == "peft" else "text_encoders.transformer."
    tensors = to_form(Layers(lora.layers, {language_key(UP_PROJ): UP_PROJ}), LANGUAGE, form)
    assert f"{start}{QUERY}.lora_A.weight" in tensors
    found = read(tensors)
    for key, layer in lora.layers.items():
        assert torch.allclose(delta_weight(layer), delta_weight(found.layers[key]), atol=1e-5)
        assert ".alpha" not in found.layers[key]


@pytest.mark.parametrize("start", ["model.language_model.", "language_model.model."])
def test_a_model_that_sees_pictures_has_the_same_layers(start):
    """One file each from such a model and from ComfyUI can be merged, and ComfyUI reads the result."""
    path = QUERY.replace("model.", start)
    assert language_key(path) == language_key(QUERY)
    tensors = {key: torch.ones(shape) for key, shape in shapes(f"base_model.model.{path}").items()}
    lora = read(tensors)
    assert list(lora.layers) == [language_key(QUERY)]
    of_comfyui = to_form(lora, LANGUAGE, "comfyui")
    assert {key.partition(".lora")[0] for key in of_comfyui} == {f"text_encoders.transformer.{QUERY}"}
    assert read(of_comfyui).layers.keys() == lora.layers.keys()
    assert {key.partition(".lora")[0] for key in to_form(lora, LANGUAGE, "peft")} == {f"base_model.model.{path}"}
    assert language_key("language_model.lm_head") == language_key("lm_head")


def test_names_in_dots_are_kept_where_the_key_has_lost_them():
    path = "transformer.h.3.attn.c_attn"
    tensors = {
        f"base_model.model.{path}.lora_A.weight": torch.ones(2, 4),
        f"base_model.model.{path}.lora_B.weight": torch.ones(4, 2),
    }
    assert f"text_encoders.transformer.{path}.lora_A.weight" in to_form(read(tensors), LANGUAGE, "auto")


def test_loha_keeps_the_suffixes_of_lycoris():
    factors = {f".hada_w{n}_{part}": torch.ones(4, 4) for n in (1, 2) for part in "ab"}
    lora = Layers({language_key(QUERY): factors | {".alpha": torch.tensor(2.0)}})
    tensors = to_form(lora, LANGUAGE, "auto")
    assert f"text_encoders.transformer.{QUERY}.hada_w1_a" in tensors
    assert float(tensors[f"text_encoders.transformer.{QUERY}.alpha"]) == 2


@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_programs_without_language_models_are_refused(form):
    with pytest.raises(CrucibleError, match=f"{form}'s programs have none.*--to peft"):
        to_form(layers(), LANGUAGE, form)


def test_alphas_of_a_config_count():
    tensors = to_form(layers(), LANGUAGE, "peft")
    doubled = with_alphas(tensors, {f"base_model.model.{QUERY}": 2.0})
    before, after = read(tensors).layers[language_key(QUERY)], read(doubled).layers[language_key(QUERY)]
    assert torch.allclose(2 * delta_weight(before), delta_weight(after))
