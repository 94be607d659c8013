"""The commands that make files from LoRAs of language models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_crucible.cli.main import main
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.delta import delta_weight
from lora_crucible.formats.forms import to_form
from lora_crucible.formats.layer_names import language_key
from lora_crucible.formats.lora_file import lora_layer, read_lora, write_lora
from lora_crucible.formats.names import place_of
from lora_crucible.formats.universal import Layers, read_layers
from lora_crucible.merging import into_folder
from lora_crucible.merging.model_folder import read_model_folder
from lora_crucible.models.transformers.identity import model_identity
from peft import LoraConfig, PeftModel, get_peft_model
from random_models import ALL, make_model, save_in_shards
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

LANGUAGE = ARCHITECTURES["language"]
TOKENS = torch.tensor([[1, 3, 5, 6, 8, 2], [1, 4, 7, 9, 10, 2]])


def lora_for(model: Any, seed: int = 1, rank: int = 3) -> Layers:
    """Return a LoRA with random weights for all linear layers but the output layer."""
    torch.manual_seed(seed)
    layers = {}
    for path, module in model.named_modules():
        if hasattr(module, "in_features") and path != "lm_head":
            down, up = torch.randn(rank, module.in_features) / 4, torch.randn(module.out_features, rank) / 4
            layers[language_key(path)] = lora_layer(down, up, 2 * rank)
    return Layers(layers)


def write(path: Path, lora: Layers, metadata: dict[str, str] | None = None) -> Path:
    write_lora(path, to_form(lora, LANGUAGE, "auto"), metadata or {})
    return path


def changes(path: Path) -> dict[str, torch.Tensor]:
    tensors, _ = read_lora(path)
    found = read_layers(tensors, lambda name: place_of(name, LANGUAGE)).layers
    return {key: delta_weight(layer) for key, layer in found.items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, change in expected.items():
        assert torch.allclose(found[key], change, atol=1e-5), key


def run(*arguments: Any) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def error_of(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert main([str(argument) for argument in arguments]) == 4
    return capsys.readouterr().err


@torch.no_grad()
def logits(model: Any, loras: dict[Path, float] | None = None) -> torch.Tensor:
    for path, strength in (loras or {}).items():
        modules = {language_key(name): module for name, module in model.named_modules()}
        for key, change in changes(path).items():
            modules[key].weight += strength * change
    return model(TOKENS).logits


def opened(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


# Merging into a folder


@pytest.mark.parametrize("kind", ALL)
def test_a_merged_folder_computes_what_base_and_lora_do(tmp_path, kind, capsys):
    base = save_in_shards(tmp_path / "base", kind)
    lora = write(tmp_path / "lora.safetensors", lora_for(make_model(kind)))
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    run("merge", lora, "--into", base, "--output", tmp_path / "merged")
    assert "Checked: 3 of 3 answers of 16 tokens are the same" in capsys.readouterr().out
    merged = opened(tmp_path / "merged")
    assert (logits(merged) - logits(opened(base), {lora: 1.0})).abs().max() < 1e-5
    assert (logits(merged) - logits(opened(base))).abs().max() > 1e-2
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    assert sorted(before) == sorted(path.name for path in (tmp_path / "merged").iterdir())
    assert len(list((tmp_path / "merged").glob("*.safetensors"))) > 1
    assert merged.config.tie_word_embeddings == opened(base).config.tie_word_embeddings


def test_a_peft_adapter_and_a_lora_are_merged_with_strengths(tmp_path):
    base = save_in_shards(tmp_path / "base", "Llama")
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(opened(base), config)
    model.save_pretrained(tmp_path / "adapter")
    lora = write(tmp_path / "lora.safetensors", lora_for(make_model("Llama")))
    run("merge", tmp_path / "adapter", f"{lora}:0.5", "--into", base, "--output", tmp_path / "merged")
    both = PeftModel.from_pretrained(opened(base), tmp_path / "adapter").merge_and_unload()
    assert (logits(opened(tmp_path / "merged")) - logits(both, {lora: 0.5})).abs().max() < 1e-5


def test_weights_keep_their_precision_and_the_answers_are_checked_to_it(tmp_path, capsys):
    base = save_in_shards(tmp_path / "base", "Qwen3", dtype=torch.bfloat16)
    lora = write(tmp_path / "lora.safetensors", lora_for(make_model("Qwen3")))
    run("merge", lora, "--into", base, "--output", tmp_path / "merged")
    assert "Checked: " in capsys.readouterr().out
    for shard in (tmp_path / "merged").glob("*.safetensors"):
        with safe_open(shard, "pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
            assert "crucible.parents" in file.metadata()
            assert not any(name.startswith("lm_head") for name in file.keys())  # noqa: SIM118 - tied


def test_an_existing_folder_is_left_alone(tmp_path):
    base = save_in_shards(tmp_path / "base", "Llama")
    lora = write(tmp_path / "lora.safetensors", lora_for(make_model("Llama")))
    (tmp_path / "merged").mkdir()
    run("merge", lora, "--into", base, "--output", tmp_path / "merged")
    assert (tmp_path / "merged_2" / "config.json").is_file()
    assert not any((tmp_path / "merged").iterdir())


def test_the_template_of_the_training_is_in_the_merged_folder(tmp_path):
    """Without it, a server writes prompts that the model was not trained on."""
    base = save_in_shards(tmp_path / "base", "Llama")
    lora = write(tmp_path / "lora.safetensors", lora_for(make_model("Llama")))
    adapter = tmp_path / "lora" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "chat_template.jinja").write_text("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    run("merge", lora, "--into", base, "--output", tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a sun"}], tokenize=False) == "[a sun]"


def test_quantized_weights_are_refused(tmp_path, capsys):
    base = save_in_shards(tmp_path / "base", "Llama")
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    lora = write(tmp_path / "lora.safetensors", lora_for(make_model("Llama")))
    told = error_of(capsys, "merge", lora, "--into", base, "--output", tmp_path / "merged")
    assert "is quantized (bitsandbytes)" in told
    assert "off by 0.18" in told
    assert "dequantize()" in told
    assert not (tmp_path / "merged").exists()


def test_another_base_of_the_same_size_is_refused_unless_asked_for(tmp_path, capsys):
    trained_on, other = (save_in_shards(tmp_path / f"base{seed}", "Llama", seed) for seed in (0, 1))
    identity = model_identity(trained_on, read_model_folder(trained_on).tensors())
    metadata = {"crucible.base_model": identity, "ss_sd_model_name": "base0"}
    lora = write(tmp_path / "lora.safetensors", lora_for(make_model("Llama")), metadata)
    told = error_of(capsys, "merge", lora, "--into", other, "--output", tmp_path / "merged")
    assert "lora.safetensors was trained on base0" in told
    run("merge", lora, "--into", trained_on, "--output", tmp_path / "right")
    run("merge", lora, "--into", other, "--output", tmp_path / "asked_for", "--other_base")


def test_a_lora_that_was_trained_in_4_bits_fits_the_folder_in_floats(tmp_path):
    base = save_in_shards(tmp_path / "base", "Llama")
    identity = model_identity(base, read_model_folder(base).tensors(), in_4bit=True)
    lora = write(tmp_path / "lora.safetensors", lora_for(make_model("Llama")), {"crucible.base_model": identity})
    run("merge", lora, "--into", base, "--output", tmp_path / "merged")


def test_a_model_of_another_size_is_refused(tmp_path, capsys):
    base = save_in_shards(tmp_path / "base", "Llama")
    lora = lora_for(make_model("Llama"))
    key = language_key("model.layers.0.self_attn.q_proj")
    wide = Layers(lora.layers | {key: lora_layer(torch.ones(2, 64), torch.ones(64, 2), 2)})
    file = write(tmp_path / "lora.safetensors", wide)
    told = error_of(capsys, "merge", file, "--into", base, "--output", tmp_path / "merged")
    assert "model.layers.0.self_attn.q_proj.weight is 32 x 32, and the change" in told
    assert sorted(tmp_path.iterdir()) == sorted([base, file])


def test_layers_that_the_model_lacks_are_named(tmp_path, capsys):
    base = save_in_shards(tmp_path / "base", "Llama")
    lora = lora_for(make_model("Llama"))
    more = Layers(
        lora.layers | {language_key("model.layers.7.mlp.up_proj"): lora_layer(torch.ones(2, 32), torch.ones(48, 2), 2)}
    )
    told = error_of(
        capsys, "merge", write(tmp_path / "a.safetensors", more), "--into", base, "--output", tmp_path / "m"
    )
    assert "no place for 1 layer of 15 that the LoRA changes (lora_te_model_layers_7_mlp_up_proj)" in told
    assert "LlamaForCausalLM" in told


def test_an_output_layer_that_is_tied_is_refused(tmp_path, capsys):
    base = save_in_shards(tmp_path / "base", "Qwen3")
    lora = Layers({language_key("lm_head"): lora_layer(torch.ones(2, 32), torch.ones(40, 2), 2)})
    told = error_of(
        capsys, "merge", write(tmp_path / "a.safetensors", lora), "--into", base, "--output", tmp_path / "m"
    )
    assert "one tensor (tie_word_embeddings)" in told


def test_an_adapter_with_embeddings_of_another_vocabulary_is_refused(tmp_path, capsys):
    """Trainers that add tokens save whole embeddings, which fit no base model with its own vocabulary."""
    base = save_in_shards(tmp_path / "base", "Llama")
    tensors = to_form(lora_for(make_model("Llama")), LANGUAGE, "peft")
    tensors["base_model.model.model.embed_tokens.weight"] = torch.ones(42, 32)
    write_lora(tmp_path / "a.safetensors", tensors, {})
    told = error_of(capsys, "merge", tmp_path / "a.safetensors", "--into", base, "--output", tmp_path / "m")
    assert "base_model.model.model.embed_tokens.weight" in told
    assert "modules_to_save" in told
    assert not (tmp_path / "m").exists()


def test_a_merged_model_that_answers_something_else_is_no_folder(tmp_path, capsys, monkeypatch):
    base = save_in_shards(tmp_path / "base", "Llama")
    lora = write(tmp_path / "lora.safetensors", lora_for(make_model("Llama")))
    bake = into_folder.write_baked
    monkeypatch.setattr(
        into_folder,
        "write_baked",
        lambda shard, output, changes, *rest, **named: bake(shard, output, {}, *rest, **named),
    )
    told = error_of(capsys, "merge", lora, "--into", base, "--output", tmp_path / "merged")
    assert "It would answer something else than the LoRA does" in told
    assert sorted(tmp_path.iterdir()) == sorted([base, lora])


def test_files_and_folders_are_told_apart(tmp_path, capsys):
    base = save_in_shards(tmp_path / "base", "Llama")
    lora = write(tmp_path / "lora.safetensors", lora_for(make_model("Llama")))
    shard = next(base.glob("*.safetensors"))
    told = error_of(capsys, "merge", lora, "--into", shard, "--output", tmp_path / "m.safetensors")
    assert "LoRAs of language models are merged into the folder of the model" in told
    told = error_of(capsys, "merge", lora, "--into", tmp_path / "bas", "--output", tmp_path / "m")
    assert f"There is no file or folder {tmp_path / 'bas'}" in told
    assert f"A similar path exists: {base}." in told


# Resizing, converting and merging of files


def test_a_file_becomes_a_folder_of_peft_and_back(tmp_path, capsys):
    lora = write(tmp_path / "lora.safetensors", lora_for(make_model("Llama")), {"ss_sd_model_name": "tiny"})
    run("convert", lora, "--to", "peft", "--output", tmp_path / "folder")
    assert json.loads((tmp_path / "folder" / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    found = PeftModel.from_pretrained(make_model("Llama"), tmp_path / "folder")
    assert (logits(found) - logits(make_model("Llama"), {lora: 1.0})).abs().max() < 1e-5
    run("convert", tmp_path / "folder", "--output", tmp_path / "back.safetensors")
    assert "This LoRA is for a language model" in capsys.readouterr().out
    assert_same(changes(tmp_path / "back.safetensors"), changes(lora))


def test_an_adapter_of_peft_is_resized_with_its_own_alpha(tmp_path):
    config = LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=["v_proj"], init_lora_weights=False)
    model = get_peft_model(make_model("Llama"), config)
    model.save_pretrained(tmp_path / "published")
    run("resize", tmp_path / "published", "--rank", 4, "--output", tmp_path / "lora.safetensors")
    assert (logits(make_model("Llama"), {tmp_path / "lora.safetensors": 1.0}) - logits(model)).abs().max() < 1e-5


def test_two_loras_of_a_language_model_are_merged(tmp_path):
    one, other = (write(tmp_path / f"{n}.safetensors", lora_for(make_model("Llama"), n)) for n in (1, 2))
    run("merge", f"{one}:0.7", f"{other}:-0.2", "--output", tmp_path / "both.safetensors")
    expected = {key: 0.7 * change - 0.2 * changes(other)[key] for key, change in changes(one).items()}
    assert_same(changes(tmp_path / "both.safetensors"), expected)


def test_a_lora_of_an_image_model_is_not_merged_with_one_of_a_language_model(tmp_path, capsys):
    one = write(tmp_path / "one.safetensors", lora_for(make_model("Llama")))
    keys = {
        f"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_{n}": lora_layer(
            torch.ones(2, 768 if n != "q" else 640), torch.ones(640, 2), 2
        )
        for n in "qkv"
    }
    write_lora(
        tmp_path / "two.safetensors",
        to_form(Layers(keys), ARCHITECTURES["sd15"], "kohya"),
        {"ss_base_model_version": "sd_v1"},
    )
    told = error_of(capsys, "merge", one, tmp_path / "two.safetensors", "--output", tmp_path / "m.safetensors")
    assert "a language model" in told


def test_pickled_adapters_are_refused_with_the_command_that_converts_them(tmp_path, capsys):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    torch.save({"a": torch.ones(1)}, tmp_path / "adapter" / "adapter_model.bin")
    told = error_of(capsys, "convert", tmp_path / "adapter", "--output", tmp_path / "m.safetensors")
    assert "weights_only=True" in told
