"""Tests of reading a language model's folder: what is refused, and with which words."""

from __future__ import annotations

import json
import pickle
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub import constants
from lora_crucible.errors import CrucibleError
from lora_crucible.models.transformers.folder import read_folder
from lora_crucible.models.transformers.refusals import conversion_command
from lora_crucible.models.transformers.resolve import find_folder
from random_models import make_model, open_model, save, tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "model")


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(values)
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def refused(folder: Path, match: str) -> str:
    with pytest.raises(CrucibleError, match=match) as error:
        open_model(folder, weights=False)
    return str(error.value)


def test_a_folder_is_read(folder: Path) -> None:
    found = read_folder(folder)
    assert found.name == "model"
    assert found.longest == 128
    assert found.size == (folder / "model.safetensors").stat().st_size
    assert [path.name for path in found.weights] == ["model.safetensors"]


@pytest.mark.parametrize("start", [b"GGUF\x03\x00\x00\x00", b"lmgg\x00\x00", b"tjgg\x03\x00", b"fmgg\x01\x00"])
@pytest.mark.parametrize("name", ["model-Q4_K_M.gguf", "ggml-model-q4_0.bin", "pytorch_model.bin", "model.safetensors"])
def test_gguf_and_ggml_are_known_by_their_contents(tmp_path: Path, start: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(start + bytes(100))
    kind = "a GGUF file" if start.startswith(b"GGUF") else "a GGML file"
    for path in (tmp_path, tmp_path / name):
        text = refused(path, f"{name} is {kind}")
        assert "safetensors" in text
        assert "load_in_4bit: true" in text


def test_gguf_weights_beside_a_config(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(50))
    refused(folder, r"model\.gguf is a GGUF file")


def test_gguf_beside_safetensors_is_ignored(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(50))
    read_folder(folder)


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *, in_process: bool = True) -> None:
    """Run the command that converts pickles; in a process of its own it also imports transformers, which is slow."""
    command = shlex.split(conversion_command(folder))
    if in_process:
        monkeypatch.setattr("sys.argv", ["-c", *command[3:]])
        exec(command[2], {})
    else:
        subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("shard", ["10GB", "20KB"])
def test_pickles_are_converted_by_the_command_that_is_named(
    tmp_path: Path, shard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = make_model("Qwen3"), tmp_path / "a folder"
    model.config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    weights = model.state_dict()
    if shard == "10GB":
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        names, half = list(weights), len(weights) // 2
        parts = {"pytorch_model-00001-of-00002.bin": names[:half], "pytorch_model-00002-of-00002.bin": names[half:]}
        for name, inside in parts.items():
            torch.save({key: weights[key].clone() for key in inside}, folder / name)
        index = {"metadata": {}, "weight_map": {key: name for name, inside in parts.items() for key in inside}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    text = refused(folder, r"are pickles \(pytorch_model.*\.bin\), which can run code")
    assert conversion_command(folder) in text
    run(folder, monkeypatch, in_process=shard == "10GB")
    with open_model(folder).session("fp32"):
        pass
    converted = transformers.AutoModelForCausalLM.from_pretrained(folder)
    for key, weight in converted.state_dict().items():
        assert torch.equal(weight, weights[key])


def test_a_pickle_with_code_is_not_run_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (open, (str(tmp_path / "ran"), "w"))

    folder = tmp_path / "model"
    make_model("Qwen3").config.save_pretrained(folder)
    torch.save({"model.norm.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        run(folder, monkeypatch)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("kind", "classes", "instead"),
    [
        ("chatglm", "ChatGLMModel", "zai-org/glm-4-9b-chat-hf"),
        ("qwen", "QWenLMHeadModel", "Qwen/Qwen3-8B"),
        ("RefinedWebModel", "RWForCausalLM", "tiiuae/falcon-7b"),
        ("my_own_model", "MyForCausalLM", "a model that transformers has a class for"),
    ],
)
def test_models_that_need_their_own_code(folder: Path, kind: str, classes: str, instead: str) -> None:
    change(folder, model_type=kind, architectures=[classes], auto_map={"AutoModelForCausalLM": "modeling.My"})
    (folder / "modeling.py").write_text("raise SystemExit('code was run')")
    text = refused(folder, f"{classes} .*trust_remote_code")
    assert instead in text


def test_code_that_is_not_needed_is_ignored(folder: Path) -> None:
    """Many repositories keep the code from before transformers had their model."""
    change(folder, auto_map={"AutoModelForCausalLM": "modeling.My", "AutoConfig": "modeling.Config"})
    (folder / "modeling.py").write_text("raise SystemExit('code was run')")
    with open_model(folder).session("fp32"):
        pass


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM, which does not write text"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "T5ForConditionalGeneration, which"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "Qwen3ForSequenceClassification, which does not"),
        ({"model_type": "clip", "architectures": ["CLIPModel"]}, "CLIPModel, which does not"),
        ({"model_type": "newest_model", "architectures": ["NewForCausalLM"]}, "does not know. Update transformers"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"quantized already \(gptq\)"),
    ],
)
def test_other_kinds_of_models(folder: Path, values: dict[str, Any], match: str) -> None:
    change(folder, **values)
    refused(folder, match)


def test_gpt2_is_refused_by_name(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=96, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    refused(tmp_path, r"GPT2LMHeadModel, whose layers \(Conv1D\).*SmolLM2-135M")


def test_a_model_that_reads_in_both_directions(tmp_path: Path) -> None:
    refused(save(tmp_path / "model", "Gemma3", use_bidirectional_attention=True), "reads in both directions")


def test_a_diffusers_folder(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    refused(tmp_path, "contains a diffusers pipeline.*task_type to text-to-image")


def test_an_adapter_without_its_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "Qwen/Qwen3-8B"}))
    refused(tmp_path, r"contains a PEFT adapter and no model.*Set base_model to Qwen/Qwen3-8B, and continue_from")


def test_what_is_missing_is_named(folder: Path) -> None:
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        (folder / name).unlink()
        match = {
            "tokenizer.json": "has no tokenizer",
            "model.safetensors": r"no weights \(model\.safetensors\) in .*found: chat_template\.jinja, config\.json",
            "config.json": r"no config\.json in ",
        }
        refused(folder, match[name])


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    make_model("Llama").save_pretrained(tmp_path, max_shard_size="20KB")
    tokenizer().save_pretrained(tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(read_folder(tmp_path).weights) == len(shards) > 2
    shards[1].unlink()
    refused(tmp_path, rf"1 file of the {len(shards)} .*is missing: {shards[1].name}")
    (tmp_path / "model.safetensors.index.json").unlink()
    refused(tmp_path, r"parts of a model's weights, but no model\.safetensors\.index\.json")


@pytest.mark.parametrize("cut", [40, 4000])
def test_truncated_weights_are_named(folder: Path, cut: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:cut])
    refused(folder, r"model\.safetensors .* is not complete .*Download or copy the file again")


def test_a_git_lfs_pointer_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(folder, "a Git LFS pointer without the file")


def test_a_damaged_config_is_named(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    refused(folder, r"config\.json is damaged")


def test_a_layer_without_weights_is_named(folder: Path) -> None:
    change(folder, num_hidden_layers=3, layer_types=None, max_window_layers=None)
    mismatch = pytest.raises(CrucibleError, match=r"do not match its config\.json: 11 layers are not there")
    with mismatch, open_model(folder).session("fp32"):
        pass


def test_a_path_is_not_taken_for_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "qwen").mkdir(parents=True)
    for written in ("./models/gone", "models/gone", str(tmp_path / "gone"), "a/b/c", "gone", "../a/b"):
        with pytest.raises(CrucibleError, match="there is no folder") as error:
            find_folder(written, download=True)
    with pytest.raises(CrucibleError, match=r"nearest folder that exists is .*models, with qwen in it"):
        find_folder("models/gone", download=True)
    assert "owner/name" in str(error.value)
    with pytest.raises(CrucibleError, match=r"A similar folder exists: .*models/qwen\. "):
        find_folder("models/qwn", download=True)


class Hub:
    """A hub with one tiny model."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, 0

    def model_info(self, repo: str, revision: str | None, files_metadata: bool) -> SimpleNamespace:
        files = [SimpleNamespace(rfilename=path.name, size=path.stat().st_size) for path in self.folder.iterdir()]
        return SimpleNamespace(sha="abc", siblings=files)

    def download(self, repo: str, name: str, *, revision: str, local_dir: Path) -> str:
        self.calls += 1
        (local_dir / name).write_bytes((self.folder / name).read_bytes())
        return str(local_dir / name)


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(folder)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return hub


def test_nothing_is_downloaded_unless_asked_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example")
    with pytest.raises(CrucibleError, match=r"owner/tiny.*--download to fetch it from https://mirror\.example"):
        find_folder("owner/tiny")
    assert hub.calls == 0


def test_a_download_says_its_size_and_is_kept(hub: Hub, folder: Path) -> None:
    said: list[str] = []
    found = find_folder("owner/tiny", download=True, announce=said.append)
    assert "Downloading owner/tiny" in said[0]
    assert "GB in" in said[0]
    calls = hub.calls
    assert find_folder("owner/tiny") == found
    assert hub.calls == calls
    model = open_model(Path("owner/tiny"))
    assert model.name == "owner/tiny"
    with model.session("fp32"):
        pass


def test_hugging_faces_own_cache_is_used(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cached(repo: str, name: str) -> str | None:
        return str(folder / name) if (folder / name).exists() and repo == "owner/tiny" else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    assert find_folder("owner/tiny") == folder
    assert hub.calls == 0
