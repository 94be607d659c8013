import json

import pytest
import torch
from lora_crucible.formats.lora_info import lora_info, strengths_note
from lora_crucible.formats.lora_model import load_lora
from safetensors.torch import save_file


def tensors(rank=4, alpha=2.0):
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    return {
        f"{layer}.lora_down.weight": torch.ones(rank, 768),
        f"{layer}.lora_up.weight": torch.ones(320, rank),
        f"{layer}.alpha": torch.tensor(alpha),
    }


def lines(*args, **kwargs):
    return lora_info(*args, **kwargs).text().splitlines()


def test_what_a_person_wants_to_know():
    metadata = {"ss_network_module": "networks.lora", "modelspec.trigger_phrase": "ohwx woman"}
    assert lines(tensors(), "people/ohwx.safetensors", metadata) == [
        "people/ohwx.safetensors (17.4 KB)",
        "Made for: Stable Diffusion 1.5",
        "Kind: LoRA, rank 4, alpha 2, 1 layer",
        "Trained with: kohya's trainer (sd-scripts or musubi-tuner)",
        "Trigger words: ohwx woman (from the file)",
        "Strength to start with: 0.8 (a rule of thumb; 0.6 to 1.0 is usual)",
        "In A1111 and Forge: <lora:ohwx:0.8>",
    ]


def test_what_a_file_does_not_tell():
    bare = {"x.lora_A.weight": torch.ones(8, 4), "x.lora_B.weight": torch.ones(4, 8)}
    assert lines(bare, "", {}) == [
        "The connected LoRA (256 bytes)",
        "Made for: an unknown architecture",
        "Kind: LoRA, rank 8, no alpha (so it equals the rank), 1 layer",
        "Trigger words: none found in the file",
        "Strength to start with: 0.8 (a rule of thumb; 0.6 to 1.0 is usual)",
    ]


def test_mixed_ranks():
    other = {key.replace("down_blocks_0", "down_blocks_1"): tensor for key, tensor in tensors(32, 16.0).items()}
    third = {key.replace("down_blocks_0", "down_blocks_2"): tensor for key, tensor in tensors().items()}
    kind = lines({**tensors(), **other, **third}, "a", {})[2]
    assert kind == "Kind: LoRA, rank 4 to 32 (mostly 4), alpha 2 to 16 (mostly 2), 3 layers"


def test_a_scale_in_a_config_is_told(tmp_path):
    path = tmp_path / "adapter_model.safetensors"
    save_file({"x.lora_A.weight": torch.ones(4, 8), "x.lora_B.weight": torch.ones(8, 4)}, path)
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 16}')
    info = lines(load_lora(path, path.name), path.name, {}, path)
    assert info[2] == "Kind: LoRA, rank 4, alpha 16, 1 layer"
    assert info[-1].startswith("Scale: 4 (alpha and rank from adapter_config.json)")


def of_language_model():
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    return {f"{layer}.lora_A.weight": torch.ones(4, 64), f"{layer}.lora_B.weight": torch.ones(64, 4)}


def test_of_a_language_model_it_is_told_what_matters_for_text():
    assert lines(of_language_model(), "writer.safetensors", {"ss_sd_model_name": "Qwen3-4B"}) == [
        "writer.safetensors (2.0 KB)",
        "Made for: a language model",
        "Kind: LoRA, rank 4, no alpha (so it equals the rank), 1 layer",
        "Trained on: Qwen3-4B",
        "Trigger words: none found in the file",
        "Strength to start with: 1 (as other programs use it; lower if it dominates the answers)",
    ]
    ours = lines(of_language_model(), "writer.safetensors", {"crucible.version": "1"})
    assert "0.6 to 0.8 if it dominates the answers" in ours[-1]
    assert "distorts the answer" in strengths_note({"writer": 1.5}, "answer")


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ('{"base_model_name_or_path": "Qwen/Qwen3-4B"}', "Qwen/Qwen3-4B"),
        ('{"base_model_name_or_path": "/home/me/models/Qwen3-4B/"}', "Qwen3-4B"),
        ('{"base_model_name_or_path": "C:\\\\models\\\\Qwen3-4B"}', "Qwen3-4B"),
        ('{"base_model_name_or_path": null}', ""),
        ("[]", ""),
        ("{", ""),
    ],
)
def test_the_base_model_in_a_config_of_peft(tmp_path, config, name):
    path = tmp_path / "adapter_model.safetensors"
    save_file(of_language_model(), path)
    (tmp_path / "adapter_config.json").write_text(config)
    assert lora_info(of_language_model(), path.name, {}, path).base_model == name
    assert lora_info(tensors(), path.name, {}, path).base_model == ""


@pytest.mark.parametrize(
    ("metadata", "note", "strength", "why"),
    [
        ({}, None, 0.8, "a rule of thumb"),
        ({"crucible.version": "1"}, None, 1.0, "samples of its training"),
        ({"crucible.version": "1"}, {"preferred weight": 0.65}, 0.65, "from a.json"),
    ],
)
def test_the_strength_to_start_from(tmp_path, metadata, note, strength, why):
    path = tmp_path / "a.safetensors"
    if note:
        path.with_suffix(".json").write_text(json.dumps(note))
    info = lora_info(tensors(), "a.safetensors", metadata, path)
    assert info.strength == strength
    assert why in info.strength_source
    assert info.prompt_tag == f"<lora:a:{strength:g}>"


def test_a_broken_note_is_told(tmp_path):
    path = tmp_path / "a.safetensors"
    path.with_suffix(".json").write_text("{")
    assert lines(tensors(), "a.safetensors", {}, path)[-1].startswith("a.json was skipped")


def test_hostile_metadata_stays_short_and_plain():
    metadata = {
        "modelspec.trigger_phrase": "<script>alert(1)</script>\x1b[2J\n" * 10_000,
        "crucible.version": "\u202e" + "9" * 10**6,
    }
    text = lora_info(tensors(), "a\nb\x00.safetensors", metadata).text()
    assert len(text) < 1500
    assert text.splitlines()[0] == "a b .safetensors (17.4 KB)"
    assert not {"\x00", "\x1b", "\u202e"} & set(text)


def test_strengths_that_add_up_to_more_than_one():
    assert strengths_note({}) == strengths_note({"a": 1.0}) == strengths_note({"a": 0.3, "b": -0.7}) == ""
    assert "a has strength -1.5" in strengths_note({"a": -1.5})
    note = strengths_note({"a": 0.5, "b": -1.0, "c": 0.5})
    assert "The strengths of the 3 LoRAs add up to 2." in note
    assert "lower b first" in note
    assert "(a to 0.25, b to -0.50, c to 0.25)" in note
