"""Every text encoder that ComfyUI recognizes can be trained as a language model, or is refused with the reason."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import comfy.sd
import pytest
import torch
from comfy.text_encoders import llama
from comfy_extras.nodes_textgen import TextGenerate
from lora_crucible.errors import CrucibleError
from lora_crucible.models.comfyui.language import support
from lora_crucible.models.comfyui.language.demo import load_demo_clip
from lora_crucible.models.comfyui.language.model import ClipLanguageBaseModel
from lora_crucible.models.comfyui.language.support import REFUSED, TRAINS_ONLY, WRITES, language_encoder
from tiny_language import TINY

CANNOT_WRITE = ("qwen2.5 vl", "llama 3", "mistral")

PLACES = (WRITES, TRAINS_ONLY, REFUSED)


def test_every_text_encoder_of_comfyui_has_a_place():
    """If this fails with a new ComfyUI, decide for each new text encoder whether it can be trained, and say so."""
    known = [name for place in PLACES for name in place]
    assert len(known) == len(set(known))
    assert set(known) == {member.name for member in comfy.sd.TEModel}


@pytest.fixture
def made_by_comfyui(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that returns the CLIP that ComfyUI makes of a kind of file, without weights."""

    def make(name: str, clip_type: Any = comfy.sd.CLIPType.STABLE_DIFFUSION) -> Any:
        monkeypatch.setattr(comfy.sd, "detect_te_model", lambda _: comfy.sd.TEModel[name])
        monkeypatch.setattr(comfy.sd, "CLIP", lambda target, **_: target)
        target = comfy.sd.load_text_encoder_state_dicts([{}], clip_type=clip_type)
        return SimpleNamespace(
            cond_stage_model=target.clip(device="meta", dtype=torch.float16, model_options={}),
            tokenizer=mock.MagicMock(),
        )

    return make


@pytest.mark.parametrize("name", [*WRITES, *TRAINS_ONLY])
def test_what_is_trained_is_found_in_what_comfyui_makes(made_by_comfyui: Any, name: str):
    encoder = language_encoder(made_by_comfyui(name))
    assert encoder.writes == (name in WRITES)
    assert encoder.stop_tokens
    layers = encoder.transformer.get_submodule("model.layers.0")
    assert any(path.endswith("down_proj") for path, _ in layers.named_modules())
    warnings = support.warnings_of(encoder, ())
    assert any("Generate Text cannot write" in text for text in warnings) == (name in TRAINS_ONLY)
    assert any("lm_head" in text for text in warnings) == (name in ("LLAMA3_8", "MISTRAL3_24B", "QWEN25_7B"))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_with_its_reason(made_by_comfyui: Any, name: str):
    with pytest.raises(CrucibleError) as error:
        language_encoder(made_by_comfyui(name))
    assert REFUSED[name][1] in str(error.value)
    assert "Load one that writes, such as Qwen3 4B" in str(error.value)


@pytest.mark.parametrize(
    ("name", "clip_type", "writes"),
    [
        ("QWEN3_4B", "FLUX2", True),
        ("QWEN3_8B", "FLUX2", True),
        ("QWEN25_7B", "HUNYUAN_IMAGE", False),
        ("QWEN25_7B", "LONGCAT_IMAGE", False),
        ("QWEN3VL_4B", "KREA2", True),
        ("QWEN3VL_8B", "BOOGU", True),
    ],
)
def test_the_type_that_a_file_is_loaded_as_makes_no_difference(made_by_comfyui, name, clip_type, writes):
    assert language_encoder(made_by_comfyui(name, comfy.sd.CLIPType[clip_type])).writes == writes


def test_a_file_with_the_last_layers_cut_off_for_pictures(made_by_comfyui):
    with pytest.raises(CrucibleError, match="has lost its last layers"):
        language_encoder(made_by_comfyui("QWEN3_8B", comfy.sd.CLIPType.IDEOGRAM4))


def test_qwen3_2507_is_recognized_by_its_name(made_by_comfyui):
    encoder = language_encoder(made_by_comfyui("QWEN3_4B"))
    (warning,) = support.warnings_of(encoder, ("Qwen3-4B-Instruct-2507.safetensors",))
    assert "rope_theta" in warning
    assert support.warnings_of(encoder, ("qwen_3_4b.safetensors",)) == ()


def test_clips_without_a_language_model(demo):
    with pytest.raises(CrucibleError, match="CLIPTextModel turns prompts into numbers for a picture model"):
        ClipLanguageBaseModel(demo[1])
    with pytest.raises(CrucibleError, match="The connected CLIP is empty"):
        ClipLanguageBaseModel(None)


def test_facts_about_the_model():
    with torch.inference_mode():
        model = ClipLanguageBaseModel(load_demo_clip())
        assert model.warnings() == ()
        assert model.facts.parameters == 864_640
        assert (model.name, model.vocabulary, model.reads, model.longest) == ("CrucibleDemoQwen3", 600, 512, 512)
        shapes = model.layer_shapes()
        assert len(shapes) == 28
        assert shapes["lora_te_model_layers_3_mlp_down_proj"] == (128, 384)
        assert model.facts.linear_sizes == sum(map(sum, shapes.values()))
        for start in ("base_model.model.", "text_encoders.transformer.", "text_encoders.qwen3_4b.transformer.", ""):
            place = model.place_of(f"{start}model.layers.3.mlp.down_proj")
            assert place is not None
            assert place.key == "lora_te_model_layers_3_mlp_down_proj"
        assert model.place_of("base_model.model.model.layers.4.mlp.down_proj") is None
        assert ClipLanguageBaseModel(load_demo_clip(), max_seq_length=100).longest == 100
        with pytest.raises(CrucibleError, match=r"max_seq_length is 600, but CrucibleDemoQwen3 reads 512 tokens"):
            ClipLanguageBaseModel(load_demo_clip(), max_seq_length=600)


@pytest.mark.parametrize("name", TINY)
def test_answers_take_the_likeliest_token_each_time(name: str):
    """Also where ComfyUI's class cannot write by itself."""
    twin = TINY[name].make_twin()
    clip = TINY[name].clip(twin)
    model = ClipLanguageBaseModel(clip)
    assert model._encoder.writes == (name not in CANNOT_WRITE)
    prompts = [[5, 6, 7, 8], [40, 41, 300]]
    with torch.inference_mode():
        with model.session("fp32"):
            answers = model.answers(prompts, 6)
        for prompt, answer in zip(prompts, answers, strict=True):
            tokens = list(prompt)
            while len(tokens) < len(prompt) + 6:
                tokens.append(int(twin(torch.tensor([tokens]))[0, -1].argmax()))
                if tokens[-1] in model._encoder.stop_tokens:
                    break
            assert answer.stopped == (tokens[-1] in model._encoder.stop_tokens)
            assert [*prompt, *answer.tokens] == tokens[: len(tokens) - answer.stopped]
        if name in CANNOT_WRITE:
            with pytest.raises(AttributeError, match=r"stop_tokens|generate"):
                TextGenerate.execute(clip, "a", 4, {"sampling_mode": "off"})


def test_cancel_reaches_each_token():
    said: list[None] = []

    def check() -> None:
        said.append(None)
        if len(said) == 3:
            raise KeyboardInterrupt

    with torch.inference_mode():
        model = ClipLanguageBaseModel(load_demo_clip(), check)
        bar = llama.tqdm
        with model.session("fp32"), pytest.raises(KeyboardInterrupt):
            model.answers([[1, 5, 6]], 20)
    assert llama.tqdm is bar
    assert len(said) == 3
