"""LoRAs of language models on a CLIP alone: which names are understood, and what is refused."""

from __future__ import annotations

import re
from types import SimpleNamespace

import comfy.ops
import pytest
import torch
from comfy.text_encoders import gemma4, llama, qwen3vl, qwen35
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.lora_model import LoraModel, load_lora
from lora_crucible.formats.lora_stack import StackEntry
from lora_crucible.merging.ingredients import Strengths
from lora_crucible.merging.recipe import Recipe
from lora_crucible.merging.result import merge_to_file
from lora_crucible.models.comfyui.applying import with_lora
from lora_crucible.models.comfyui.language_layers import language_models_of
from lora_crucible.models.comfyui.stacking import OwnLora, apply_stack
from lora_crucible.models.comfyui.weights import base_weights_of
from safetensors.torch import save_file
from tiny_encoders import CLASSES, answer, clip_of

TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
GENERATING = ["Qwen3", "Qwen3.5", "Gemma 3", "Ministral"]


def peft(path):
    return f"base_model.model.{path}"


FORMS = {
    "ComfyUI with the encoder's name": lambda path, encoder: f"text_encoders.{encoder}.transformer.{path}",
    "ComfyUI": lambda path, _: f"text_encoders.transformer.{path}",
    "PEFT": lambda path, _: peft(path),
    "transformers": lambda path, _: path,
    "PEFT, model that sees": lambda path, _: peft(path.replace("model.", "model.language_model.")),
    "PEFT, older model that sees": lambda path, _: peft(f"language_model.{path}"),
    "kohya": lambda path, _: f"lora_te_{path.removeprefix('model.').replace('.', '_')}",
    "in memory": lambda path, _: f"lora_te_{path.replace('.', '_')}",
}


def linear_layers(clip):
    """Return the path in transformers and the size of each linear layer in the blocks."""
    ((_, encoder),) = clip.cond_stage_model.named_children()
    return {
        path: (layer.out_features, layer.in_features)
        for path, layer in encoder.transformer.named_modules()
        if "layers." in path and hasattr(layer, "in_features")
    }


def factors(sizes, seed=1):
    """Return random factors of rank 2 (A and B) for layers of these sizes."""
    draw = torch.Generator().manual_seed(seed)
    return {
        path: (torch.randn(2, columns, generator=draw) * 0.3, torch.randn(rows, 2, generator=draw) * 0.3)
        for path, (rows, columns) in sizes.items()
    }


def file_of(layers, form="PEFT", encoder="", name="writer.safetensors", **metadata):
    kohya = form in ("kohya", "in memory")
    a, b = ("lora_down", "lora_up") if kohya else ("lora_A", "lora_B")
    tensors = {}
    for path, (down, up) in layers.items():
        layer = FORMS[form](path, encoder)
        tensors |= {f"{layer}.{a}.weight": down, f"{layer}.{b}.weight": up}
        if kohya:
            tensors[f"{layer}.alpha"] = torch.tensor(2.0)
    return LoraModel(tensors, name, metadata)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", CLASSES)
def test_every_layer_finds_its_place_by_every_name(family, form):
    with torch.inference_mode():
        clip = clip_of(family)
        encoder = CLASSES[family][0]
        layers = factors(linear_layers(clip))
        lora = file_of(layers, form, encoder)
        applied = with_lora(None, clip, lora, 1.0, 1.0)
    assert (applied.model, applied.matched, applied.unmatched) == (None, len(lora), ())
    assert applied.of_language_model
    patches = applied.clip.patcher.patches
    assert patches.keys() == {f"{encoder}.transformer.{path}.weight" for path in layers}
    for path, (down, up) in layers.items():
        key = f"{encoder}.transformer.{path}.weight"
        weight = clip.cond_stage_model.get_parameter(key)
        with torch.inference_mode():
            patched = applied.clip.patcher.patch_weight_to_device(key, return_weight=True)
        torch.testing.assert_close(patched, weight + up @ down, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", GENERATING)
def test_the_answer_changes_and_that_of_the_other_clip_does_not(family):
    with torch.inference_mode():
        clip = clip_of(family)
        before = answer(clip)
        applied = with_lora(None, clip, file_of(factors(linear_layers(clip))), 1.0, 3.0)
        with_it = answer(applied.clip)
        assert with_it != before
        assert answer(clip) == before
        assert answer(applied.clip) == with_it
        assert with_lora(None, clip, file_of(factors(linear_layers(clip))), 1.0, 0.0).clip is clip


def test_the_scale_of_a_peft_folder_counts(tmp_path):
    clip = clip_of("Qwen3")
    path = next(iter(linear_layers(clip)))
    layers = factors({path: linear_layers(clip)[path]})
    save_file(dict(file_of(layers)), tmp_path / "adapter_model.safetensors")
    config = '{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "Qwen/Qwen3-0.6B"}'
    (tmp_path / "adapter_config.json").write_text(config)
    file = tmp_path / "adapter_model.safetensors"
    with torch.inference_mode():
        applied = with_lora(None, clip, load_lora(file, "writer/adapter_model.safetensors"), 1.0, 0.5)
        key = f"qwen3_06b.transformer.{path}.weight"
        patched = applied.clip.patcher.patch_weight_to_device(key, return_weight=True)
    down, up = layers[path]
    expected = clip.cond_stage_model.get_parameter(key) + 0.5 * 3 * up @ down
    torch.testing.assert_close(patched, expected, rtol=1e-5, atol=1e-6)
    result = apply_stack(None, clip, [], OwnLora("writer/adapter_model.safetensors", 0.5, 0.5), [], lambda _: file)
    for part in ("Made for: a language model", "Trained on: Qwen/Qwen3-0.6B", "Scale: 3", "Matching keys: 3 of 3"):
        assert part in result.info
    for part in ("image", "A1111", "strength_model"):
        assert part not in result.info


@pytest.mark.parametrize("start", ["base_model.model.model.", "text_encoders.transformer.model."])
def test_a_dora_is_merged_as_it_acts(tmp_path, start):
    """A DoRA in PEFT's form and one in ComfyUI's: merged with the CLIP, they change the weights as on it."""
    clip = clip_of("Qwen3")
    layers = factors(linear_layers(clip))
    tensors = {}
    for path, (down, up) in layers.items():
        layer = start + path.removeprefix("model.")
        tensors |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
        weight = clip.cond_stage_model.get_parameter(f"qwen3_06b.transformer.{path}.weight")
        norm = 1.3 * weight.norm(dim=1)
        if start.startswith("base_model"):
            tensors[f"{layer}.lora_magnitude_vector"] = norm
        else:
            tensors[f"{layer}.dora_scale"] = norm[:, None]
    dora = LoraModel(tensors, "dora.safetensors")
    with torch.inference_mode():
        applied = with_lora(None, clip, dora, 1.0, 1.0)
        assert (applied.matched, applied.unmatched) == (len(dora), ())
    stack = [Strengths(dora, 1.0, 1.0)]
    with pytest.raises(CrucibleError, match="`clip`"):
        merge_to_file(tmp_path / "never.safetensors", stack, Recipe(rank=64))
    merged, _ = merge_to_file(tmp_path / "merged.safetensors", stack, Recipe(rank=64), base_weights_of(None, clip))
    with torch.inference_mode():
        both = [one.clip.patcher for one in (applied, with_lora(None, clip, merged, 1.0, 1.0))]
        assert both[0].patches.keys() == both[1].patches.keys()
        for key in both[0].patches:
            first, second = (patcher.patch_weight_to_device(key, return_weight=True) for patcher in both)
            torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


OF_CORE = {
    **{name: getattr(llama, name) for name in ("Llama2", "Mistral3Small24B", "Ministral3_3B", "Ovis25_2B")},
    **{name: getattr(llama, name) for name in ("Qwen3_06B", "Qwen3_4B", "Qwen3_8B", "Qwen25_3B", "Qwen25_7BVLI")},
    **{name: getattr(llama, name) for name in ("Gemma2_2B", "Gemma3_4B", "Gemma3_4B_Vision", "Gemma3_12B")},
    "Gemma4Base": gemma4.Gemma4_E4B,
    "Qwen35": qwen35.Qwen35,
    "Qwen3VL": qwen3vl._make_qwen3vl_model("qwen3vl_4b"),
}


@pytest.mark.parametrize("name", OF_CORE)
def test_the_language_models_of_core_have_these_names(name):
    """In the sizes of the published models, without their weights."""
    transformer = OF_CORE[name]({}, torch.float16, "meta", comfy.ops.manual_cast)
    cond_stage_model = torch.nn.Module()
    cond_stage_model.encoder = torch.nn.Module()
    cond_stage_model.encoder.transformer = transformer
    (model,) = language_models_of(cond_stage_model)
    assert (model.name, model.blocks, model.is_cut) == (name, transformer.num_layers, False)
    for path in ("model.layers.3.self_attn.q_proj", f"model.layers.{model.blocks - 1}.mlp.down_proj"):
        key = f"text_encoders.encoder.transformer.{path}"
        assert {model.key_of(form(path, "encoder")) for form in FORMS.values()} == {key}
        rows, columns = cond_stage_model.get_parameter(f"encoder.transformer.{path}.weight").shape
        assert model.shapes[path.removeprefix("model.")] == (rows, columns)


def refusal(clip, lora, model=None):
    with pytest.raises(CrucibleError) as caught:
        with_lora(model, clip, lora, 1.0, 1.0)
    return str(caught.value)


def test_a_lora_for_another_size_is_refused_as_a_whole():
    lora = file_of(factors(linear_layers(clip_of("Qwen3", hidden_size=96))), ss_sd_model_name="big-model")
    text = refusal(clip_of("Qwen3"), lora)
    for part in ("does not fit the CLIP (Qwen3_06B)", "another language model (according to the file, big-model)"):
        assert part in text
    assert "The sizes differ: model.layers.0." in text
    assert "None of its 28 keys fits" in text


def test_a_lora_of_which_some_layers_have_the_same_size_is_not_applied_in_part():
    lora = file_of(factors(linear_layers(clip_of("Qwen3", intermediate_size=128))))
    text = refusal(clip_of("Qwen3"), lora)
    assert re.search(
        r"differ: model\.layers\.\d\.mlp\.\w+ is (128 x 64|64 x 128) in the LoRA and (96 x 64|64 x 96) in", text
    )
    assert "16 of its 28 keys would fit by chance" in text


def test_a_lora_with_more_blocks_is_refused_unless_comfyui_has_cut_them_off():
    deep = file_of(factors(linear_layers(clip_of("Mistral", num_hidden_layers=3))))
    assert "It changes 3 blocks, and the CLIP has 2" in refusal(clip_of("Qwen2.5"), deep)
    applied = with_lora(None, clip_of("Mistral", final_norm=False), deep, 1.0, 1.0)
    assert (applied.matched, len(applied.unmatched)) == (28, 14)


def test_layers_that_the_clip_does_not_have():
    clip = clip_of("Qwen3")
    layers = factors({**linear_layers(clip), "model.layers.0.linear_attn.out_proj": (64, 64)})
    assert "layers that the CLIP does not have (layers.0.linear_attn.out_proj)" in refusal(clip, file_of(layers))
    outside = factors({**linear_layers(clip), "lm_head": (48, 64), "model.visual.blocks.0.attn.qkv": (8, 8)})
    lora = file_of(outside)
    applied = with_lora(None, clip, lora, 1.0, 1.0)
    assert (applied.matched, len(applied.unmatched)) == (28, 4)
    assert all("lm_head" in key or "visual" in key for key in applied.unmatched)


def test_of_two_language_models_the_one_of_its_size_gets_it():
    alone = {"Qwen3": clip_of("Qwen3"), "Qwen2.5": clip_of("Qwen2.5", hidden_size=96)}
    both = clip_of("Qwen3")
    both.cond_stage_model.add_module("qwen25_3b", alone["Qwen2.5"].cond_stage_model.qwen25_3b)
    for family, clip in alone.items():
        for form in ("PEFT", "ComfyUI"):
            layers = factors(linear_layers(clip))
            applied = with_lora(None, both, file_of(layers, form), 1.0, 1.0)
            encoder = CLASSES[family][0]
            assert applied.clip.patcher.patches.keys() == {f"{encoder}.transformer.{path}.weight" for path in layers}


def test_what_is_connected_and_what_is_not(demo):
    model, picture_clip, _ = demo
    clip = clip_of("Qwen3")
    lora = file_of(factors(linear_layers(clip)))
    text = refusal(None, lora, model)
    assert "is for a language model, which ComfyUI loads as CLIP, and no CLIP is connected" in text
    assert "is for a language model, and the CLIP (clip_l) has none" in refusal(picture_clip, lora)
    both = with_lora(model, clip, lora, 1.0, 1.0)
    assert both.model is model
    assert both.unmatched == ()

    of_unet = {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k": (8, 8)}
    for_pictures = LoraModel({}, "style.safetensors")
    for layer, (rows, columns) in of_unet.items():
        for_pictures[f"{layer}.lora_down.weight"] = torch.ones(2, columns)
        for_pictures[f"{layer}.lora_up.weight"] = torch.ones(rows, 2)
    for one in (clip, picture_clip):
        text = refusal(one, for_pictures)
        assert "style.safetensors changes only the model that draws (2 keys), and only a CLIP is connected" in text
    for_pictures[f"{TEXT}.lora_down.weight"] = torch.ones(2, 128)
    for_pictures[f"{TEXT}.lora_up.weight"] = torch.ones(128, 2)
    applied = with_lora(None, picture_clip, for_pictures, 1.0, 1.0)
    assert (applied.matched, applied.unmatched, applied.without_model) == (2, (), 2)
    assert "style.safetensors does not fit the CLIP (Qwen3_06B)" in refusal(clip, for_pictures)
    with pytest.raises(CrucibleError, match="Neither a MODEL nor a CLIP is connected"):
        apply_stack(None, None, [], OwnLora(lora, 1.0, 1.0), [], None)


def test_what_is_told(demo, tmp_path):
    model, _, _ = demo
    clip = clip_of("Qwen3")
    for name in "ab":
        save_file(dict(file_of(factors(linear_layers(clip)))), tmp_path / f"{name}.safetensors")
    find = SimpleNamespace(listed=["a.safetensors", "b.safetensors"], file=lambda name: tmp_path / name)
    first = apply_stack(None, clip, [StackEntry("a.safetensors", 1.0, 0.8)], None, find.listed, find.file)
    assert "acts on the CLIP (Qwen3_06B) only, at strength_clip (0.8); strength_model (1) does not count" in first.info
    second = apply_stack(None, first.clip, [StackEntry("b.safetensors", 0.8, 0.8)], None, find.listed, find.file)
    assert "The strengths of the 2 LoRAs add up to 1.6. Above 1, they easily distort the answer" in second.info
    assert second.lora_stack == [("b.safetensors", 0.8, 0.8)]
    assert second.model is None
    beside = apply_stack(model, clip, [StackEntry("a.safetensors", 1.0, 1.0)], None, find.listed, find.file)
    assert beside.of_language_model
    assert not apply_stack(model, clip, [], None, find.listed, find.file).of_language_model
    assert "Warning" not in beside.info
    assert beside.model is model
    assert model.get_attachment("crucible_lora_strengths") is None
