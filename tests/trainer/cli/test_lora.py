"""The commands that make LoRA files from LoRA files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from lora_crucible.cli.main import main
from lora_crucible.doctor import requirements
from lora_crucible.formats import forms
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.delta import delta_weight
from lora_crucible.formats.forms import to_form
from lora_crucible.formats.lora_file import DOWN, UP, lora_layer, read_lora, write_lora
from lora_crucible.formats.names import place_of
from lora_crucible.formats.tensor_file import data_of
from lora_crucible.formats.universal import Layers, read_layers
from lora_crucible.merging import baking

SD15 = ARCHITECTURES["sd15"]
BLOCK = "down_blocks_1_attentions_0_transformer_blocks_0"
QUERY, KEY = f"lora_unet_{BLOCK}_attn2_to_q", f"lora_unet_{BLOCK}_attn2_to_k"
CLIP = "lora_te_text_model_encoder_layers_0_mlp_fc1"
SHAPES = {QUERY: (640, 640), KEY: (640, 768), CLIP: (3072, 768)}


def layers(seed: int, rank: int) -> Layers:
    torch.manual_seed(seed)
    return Layers(
        {
            key: lora_layer(torch.randn(rank, i) / 8, torch.randn(o, rank) / 8, rank / 2)
            for key, (o, i) in SHAPES.items()
        }
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two LoRA files, one as kohya's trainer writes it and one as diffusers does."""
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    write_lora(one, to_form(layers(1, 4), SD15, "kohya"), {"modelspec.trigger_phrase": "zwx style"})
    write_lora(other, to_form(layers(2, 3), SD15, "diffusers"), {"modelspec.trigger_phrase": "qqq person"})
    return one, other


def changes(path: Path) -> dict[str, torch.Tensor]:
    tensors, _ = read_lora(path)
    found = read_layers(tensors, lambda name: place_of(name, SD15)).layers
    return {key: delta_weight(layer) for key, layer in found.items()}


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) in (1, 2, 4)
    return capsys.readouterr().err


def test_a_merged_file_does_what_both_do(files, tmp_path, capsys):
    one, other = files
    output = tmp_path / "both.safetensors"
    assert main(["merge", f"{one}:0.7", f"{other}:0.5:-0.2", "--output", str(output)]) == 0
    assert "No layer lost anything" in capsys.readouterr().out
    for key, change in changes(output).items():
        strength = -0.2 if key == CLIP else 0.5
        torch.testing.assert_close(
            change, 0.7 * changes(one)[key] + strength * changes(other)[key], rtol=1e-5, atol=1e-6
        )


def test_the_merged_file_says_what_it_is_made_of(files, tmp_path):
    one, other = files
    output = tmp_path / "both.safetensors"
    main(["merge", f"{one}:0.7", f"{other}", "--method", "ties", "--density", "0.4", "--output", str(output)])
    _, metadata = read_lora(output)
    parents = json.loads(metadata["crucible.parents"])
    assert [(parent["name"], parent["strength_model"]) for parent in parents] == [(one.name, 0.7), (other.name, 1.0)]
    assert parents[0]["sha256"] == read_lora(one)[1]["sshs_model_hash"]
    assert json.loads(metadata["crucible.made_by"]) == {
        "command": "merge",
        "method": "ties",
        "rank": None,
        "density": 0.4,
        "majority_sign": "total",
    }
    assert metadata["modelspec.trigger_phrase"] == "zwx style, qqq person"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"


def test_a_converted_file_keeps_what_it_says_of_its_training(files, tmp_path):
    output = tmp_path / "converted.safetensors"
    tensors, _ = read_lora(files[0])
    write_lora(files[0], tensors, {"ss_steps": "400", "ss_learning_rate": "0.0002", "modelspec.title": "one"})
    main(["convert", str(files[0]), "--output", str(output)])
    _, metadata = read_lora(output)
    assert (metadata["ss_steps"], metadata["ss_learning_rate"]) == ("400", "0.0002")
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "2")
    assert metadata["modelspec.title"] == "converted"


def test_a_file_that_is_there_is_not_overwritten(files, tmp_path, capsys):
    one, _ = files
    before = one.read_bytes()
    assert main(["merge", str(one), "--output", str(one)]) == 0
    assert one.read_bytes() == before
    assert f"Saved {tmp_path / 'one_2.safetensors'}" in capsys.readouterr().out


def test_resize(files, tmp_path, capsys):
    output = tmp_path / "small.safetensors"
    assert main(["resize", str(files[0]), "--rank", "2", "--output", str(output)]) == 0
    told = capsys.readouterr().out
    whole, small = changes(files[0]), changes(output)
    lost = sum((whole[key] - small[key]).square().sum() for key in whole)
    share = (lost / sum(change.square().sum() for change in whole.values())).sqrt().item()
    assert f"{share:.1%} of the whole" in told
    assert len(read_lora(output)[0][f"{QUERY}{DOWN}"]) == 2


def test_resize_by_energy_keeps_what_was_asked(files, tmp_path):
    output = tmp_path / "small.safetensors"
    main(["resize", str(files[0]), "--energy", "0.7", "--output", str(output)])
    whole, small = changes(files[0]), changes(output)
    for key in whole:
        assert small[key].square().sum() >= 0.7 * whole[key].square().sum()
    assert len(read_lora(output)[0][f"{QUERY}{DOWN}"]) < 4


@pytest.mark.parametrize(
    ("form", "start"),
    [("auto", "lora_unet_down"), ("diffusers", "unet.down"), ("comfyui", "diffusion_model.input_blocks.4.1")],
)
def test_convert_changes_names_only(files, tmp_path, form, start):
    output = tmp_path / "converted.safetensors"
    assert main(["convert", str(files[0]), "--to", form, "--output", str(output)]) == 0
    assert any(key.startswith(start) for key in read_lora(output)[0])
    for key, change in changes(output).items():
        torch.testing.assert_close(change, changes(files[0])[key], rtol=1e-5, atol=1e-6)


def test_a_scale_that_only_diffusers_reads(files, tmp_path, capsys):
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{layer}.lora_A.weight": torch.randn(3, 320), f"{layer}.lora_B.weight": torch.randn(320, 3)}
    plain, scaled = tmp_path / "plain.safetensors", tmp_path / "scaled.safetensors"
    write_lora(plain, tensors, {})
    write_lora(scaled, tensors, {"lora_adapter_metadata": json.dumps({"unet.r": 3, "unet.lora_alpha": 6})})
    made = []
    for file, said in ((plain, False), (scaled, True)):
        made.append(tmp_path / f"of_{file.name}")
        assert main(["convert", str(file), "--output", str(made[-1])]) == 0
        assert ("Scale: 2 (alpha and rank from lora_adapter_metadata)" in capsys.readouterr().out) == said
    one, other = map(changes, made)
    for key in one:
        torch.testing.assert_close(other[key], 2 * one[key])


def test_precision(files, tmp_path):
    half, whole = tmp_path / "half.safetensors", tmp_path / "whole.safetensors"
    main(["convert", str(files[0]), "--save_precision", "fp16", "--output", str(half)])
    main(["convert", str(half), "--output", str(whole)])
    assert {tensor.dtype for tensor in read_lora(half)[0].values()} == {torch.float16}
    assert {tensor.dtype for tensor in read_lora(whole)[0].values()} == {torch.float16}


def write_checkpoint(path: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    start = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2"
    tensors = {
        f"{start}.to_q.weight": torch.randn(640, 640),
        f"{start}.to_k.weight": torch.randn(640, 768),
        "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight": torch.randn(3072, 768),
        "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.bias": torch.randn(3072),
        "first_stage_model.decoder.conv_in.weight": torch.randn(8, 4, 3, 3),
    }
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    metadata = {"format": "pt", "modelspec.hash_sha256": "0x1"}
    safetensors.torch.save_file(tensors | {"model_ema.num_updates": torch.tensor(7)}, path, metadata)
    return tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_baked_into_a_checkpoint(files, tmp_path, capsys, dtype):
    checkpoint, output = tmp_path / "base.safetensors", tmp_path / "baked.safetensors"
    before = write_checkpoint(checkpoint, dtype)
    one, other = files
    assert main(["merge", f"{one}:0.7", f"{other}:0.5", "--into", str(checkpoint), "--output", str(output)]) == 0
    assert "3 tensors changed" in capsys.readouterr().out
    after = safetensors.torch.load_file(output)
    joint = {key: 0.7 * changes(one)[key] + 0.5 * changes(other)[key] for key in SHAPES}
    rounding = 1e-5 if dtype == torch.float32 else 1e-2
    for name, change in zip(before, joint.values(), strict=False):
        expected = (before[name].float() + change).to(dtype)
        torch.testing.assert_close(after[name], expected, rtol=rounding, atol=1e-5)
    for name in list(before)[3:]:
        assert after[name].equal(before[name])
    assert after["model_ema.num_updates"] == 7
    with safetensors.safe_open(output, "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert [parent["name"] for parent in json.loads(metadata["crucible.parents"])] == [one.name, other.name]
    assert "modelspec.hash_sha256" not in metadata


def test_a_checkpoint_that_does_not_fit(files, tmp_path, capsys):
    checkpoint = tmp_path / "flux.safetensors"
    safetensors.torch.save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(9, 3)}, checkpoint)
    output = tmp_path / "baked.safetensors"
    told = error_of(capsys, "merge", str(files[0]), "--into", str(checkpoint), "--output", str(output))
    assert "has none of the 3 layers" in told
    assert "The LoRA is for Stable Diffusion 1.5" in told
    assert not output.exists()


def test_a_checkpoint_of_another_size(files, tmp_path, capsys):
    checkpoint, output = tmp_path / "sd2.safetensors", tmp_path / "baked.safetensors"
    name = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    safetensors.torch.save_file({name: torch.zeros(640, 1024)}, checkpoint)
    told = error_of(capsys, "merge", str(files[0]), "--into", str(checkpoint), "--output", str(output))
    for part in ("one.safetensors cannot be baked", name, "640 x 1024", "640 x 768"):
        assert part in told
    assert not output.exists()


def test_what_into_does_not_heed(files, tmp_path, capsys):
    arguments = ["merge", str(files[0]), "--into", str(files[1]), "--output", str(tmp_path / "no.safetensors")]
    assert "--rank and --save_precision are for LoRAs" in error_of(capsys, *arguments, "--rank", "4")


def test_what_is_no_part_of_a_layer_is_told(files, tmp_path, capsys):
    tensors, _ = read_lora(files[0])
    write_lora(files[0], tensors | {"bundle_emb.word.string_to_param": torch.ones(2)}, {})
    for command in (["merge", str(files[0])], ["resize", str(files[0]), "--rank", "2"], ["convert", str(files[0])]):
        assert main([*command, "--output", str(tmp_path / "x.safetensors")]) == 0
        assert "bundle_emb.word.string_to_param" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["merge", "resize", "convert"])
def test_whole_weights_beside_the_lora_are_not_left_out(files, tmp_path, capsys, command):
    tensors, _ = read_lora(files[0])
    write_lora(files[0], tensors | {"unet.conv_out.weight": torch.ones(4, 320, 3, 3)}, {})
    rank = ["--rank", "2"] if command == "resize" else []
    output = tmp_path / "x.safetensors"
    told = error_of(capsys, command, str(files[0]), *rank, "--output", str(output))
    for part in (
        "one.safetensors has 1 tensor that belongs to no layer",
        "unet.conv_out.weight",
        "nothing was written",
    ):
        assert part in told
    assert not output.exists()


def test_an_embedding_has_no_place_in_diffusers(files, tmp_path, capsys):
    tensors, _ = read_lora(files[0])
    write_lora(files[0], tensors | {"bundle_emb.word.string_to_param": torch.ones(2)}, {})
    told = error_of(capsys, "convert", str(files[0]), "--to", "diffusers", "--output", str(tmp_path / "x.safetensors"))
    assert "embedding" in told
    assert "--to kohya" in told


def test_a_layer_that_comes_out_wrong_is_no_file(files, tmp_path, capsys, monkeypatch):
    """As a fault in the tables of names or in the cutting of layers would make it."""
    portable = forms.to_portable
    monkeypatch.setattr(
        forms, "to_portable", lambda *given, **more: {k: v.flip(0) for k, v in portable(*given, **more).items()}
    )
    output = tmp_path / "x.safetensors"
    told = error_of(capsys, "convert", str(files[0]), "--to", "diffusers", "--output", str(output))
    for part in ("not saved", "3 layers of 3 would not do", QUERY):
        assert part in told
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_a_checkpoint_without_a_place_for_each_layer(files, tmp_path, capsys):
    checkpoint, output = tmp_path / "base.safetensors", tmp_path / "baked.safetensors"
    before = write_checkpoint(checkpoint)
    name = next(name for name in before if name.endswith("mlp.fc1.weight"))
    safetensors.torch.save_file({key: tensor for key, tensor in before.items() if key != name}, checkpoint)
    into = ("--into", str(checkpoint), "--output", str(output))
    told = error_of(capsys, "merge", str(files[0]), *into)
    for part in ("base.safetensors has no place for 1 layer of 3", CLIP, "nothing was written", ":1:0"):
        assert part in told
    assert not output.exists()
    assert main(["merge", f"{files[0]}:1:0", *into]) == 0


def test_a_bias_without_a_place_in_the_checkpoint(files, tmp_path, capsys):
    checkpoint = tmp_path / "base.safetensors"
    write_checkpoint(checkpoint)
    tensors, _ = read_lora(files[0])
    write_lora(files[0], tensors | {f"{QUERY}.diff_b": torch.ones(640)}, {})
    output = str(tmp_path / "x.safetensors")
    told = error_of(capsys, "merge", str(files[0]), "--into", str(checkpoint), "--output", output)
    assert f"no place for 1 layer of 3 that the LoRA changes ({QUERY})" in told
    write_lora(files[0], tensors | {f"{CLIP}.diff_b": torch.ones(3072)}, {})
    assert main(["merge", str(files[0]), "--into", str(checkpoint), "--output", output]) == 0


def test_a_checkpoint_that_comes_out_wrong_is_no_file(files, tmp_path, capsys, monkeypatch):
    checkpoint, output = tmp_path / "base.safetensors", tmp_path / "baked.safetensors"
    write_checkpoint(checkpoint)
    monkeypatch.setattr(baking, "data_of", lambda tensor: data_of(tensor.flip(0) if tensor.ndim > 1 else tensor))
    told = error_of(capsys, "merge", str(files[0]), "--into", str(checkpoint), "--output", str(output))
    assert "read back, 3 tensors of 3 changed ones are not what was computed" in told
    assert sorted(tmp_path.iterdir()) == sorted([*files, checkpoint])


def test_a_modulation_is_baked(tmp_path):
    lora, checkpoint, output = (tmp_path / f"{name}.safetensors" for name in ("lora", "wan", "baked"))
    name, change = "blocks.0.modulation", torch.randn(1, 6, 8)
    layer = {f"diffusion_model.blocks.0.self_attn.q{end}": torch.ones(8, 8) for end in (".lora_down.weight", UP)}
    safetensors.torch.save_file(layer | {"diffusion_model.blocks.0.diff_m": change}, lora)
    before = {name: torch.randn(1, 6, 8), "blocks.0.self_attn.q.weight": torch.randn(8, 8)}
    safetensors.torch.save_file(before, checkpoint)
    assert main(["merge", str(lora), "--into", str(checkpoint), "--output", str(output)]) == 0
    torch.testing.assert_close(safetensors.torch.load_file(output)[name], before[name] + change)


def test_a_dora_is_not_made_one_of_diffusers(files, tmp_path, capsys):
    tensors, _ = read_lora(files[0])
    write_lora(files[0], tensors | {f"{QUERY}.dora_scale": torch.ones(640, 1)}, {})
    told = error_of(capsys, "convert", str(files[0]), "--to", "diffusers", "--output", str(tmp_path / "x.safetensors"))
    for part in ("DoRA", QUERY, "diffusers has no place for it", "merge FILE --base MODEL"):
        assert part in told


def test_pefts_dora_is_not_taken_for_a_lora(files, tmp_path, capsys):
    tensors, _ = read_lora(files[0])
    write_lora(files[0], tensors | {f"{QUERY}.lora_magnitude_vector": torch.ones(640)}, {})
    for command in (["merge", str(files[0])], ["resize", str(files[0]), "--rank", "2"]):
        told = error_of(capsys, *command, "--output", str(tmp_path / "x.safetensors"))
        assert QUERY in told
        assert "DoRA" in told
        assert "--base" in told


def test_a_rank_that_nothing_has(files, tmp_path, capsys):
    assert main(["resize", str(files[0]), "--rank", "64", "--output", str(tmp_path / "x.safetensors")]) == 0
    assert "the ranks stay as they are" in capsys.readouterr().out


def test_a_quantized_checkpoint(files, tmp_path, capsys):
    checkpoint, output = tmp_path / "small.safetensors", tmp_path / "baked.safetensors"
    write_checkpoint(checkpoint, torch.float8_e4m3fn)
    told = error_of(capsys, "merge", str(files[0]), "--into", str(checkpoint), "--output", str(output))
    assert "quantized" in told
    assert "F8_E4M3" in told
    assert not output.exists()


def test_loras_of_different_models(files, tmp_path, capsys):
    flux = tmp_path / "flux.safetensors"
    layer = lora_layer(torch.randn(2, 3072), torch.randn(9216, 2), 2.0)
    write_lora(flux, {f"lora_unet_single_blocks_0_modulation_lin{suffix}": t for suffix, t in layer.items()}, {})
    told = error_of(capsys, "merge", str(files[0]), str(flux), "--output", str(tmp_path / "no.safetensors"))
    assert "one.safetensors is for Stable Diffusion 1.5" in told
    assert "flux.safetensors is for Flux.1 or HunyuanVideo" in told
    assert not (tmp_path / "no.safetensors").exists()


def test_nothing_is_needed_that_comfyui_does_not_bring(files, tmp_path, capsys, monkeypatch):
    find_spec = requirements.find_spec
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    assert main(["convert", str(files[0]), "--output", str(tmp_path / "x.safetensors")]) == 0
    assert "LoRA Crucible needs matplotlib" in error_of(capsys, "train", "config.yaml")


@pytest.mark.parametrize("written", ["{}:", "{}:much", "{}:0.5:0.5:0.5", "{}:nan", "{}:inf"])
def test_a_strength_that_is_none(files, tmp_path, capsys, written):
    told = error_of(capsys, "merge", written.format(files[0]), "--output", str(tmp_path / "no.safetensors"))
    assert "is not a LoRA with a strength" in told
    assert "mine.safetensors:0.7" in told


def test_a_missing_file(tmp_path, capsys):
    told = error_of(
        capsys, "merge", str(tmp_path / "gone.safetensors:0.5"), "--output", str(tmp_path / "no.safetensors")
    )
    assert f"no file {tmp_path / 'gone.safetensors'}" in told


def test_neither_rank_nor_energy(files, tmp_path, capsys):
    told = error_of(capsys, "resize", str(files[0]), "--output", str(tmp_path / "no.safetensors"))
    assert "either --rank or --energy" in told


def test_a_rank_that_is_none(files, tmp_path, capsys):
    for command in (["merge", str(files[0])], ["resize", str(files[0])]):
        told = error_of(capsys, *command, "--rank", "0", "--output", str(tmp_path / "no.safetensors"))
        assert "rank is 0, but a layer needs at least 1" in told
