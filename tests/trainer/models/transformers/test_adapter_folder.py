"""The folder with a trained adapter in the form of PEFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_crucible.adapters.adapters import Adapters
from lora_crucible.adapters.dropout import RowSeeds
from lora_crucible.adapters.peft_layers import adapted
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.adapters.targets import is_adaptable
from lora_crucible.config.layer_patterns import parse_patterns
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.adapter_folder import WEIGHTS
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.identify import identify
from lora_crucible.formats.layer_names import language_key
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.transformers.adapter_folder import save_adapter_folder
from peft import PeftModel
from random_models import ALL, make_model, save_in_shards, tokenizer
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

TOKENS = torch.tensor([[1, 3, 5, 6, 8, 2], [1, 4, 7, 9, 10, 2]])
ALGORITHMS = ("lora", "rslora", "dora", "loha", "lokr")
PATTERNS = "q_proj rank=2 alpha=8, v_proj, o_proj, down_proj rank=3 alpha=3"


def spec(algorithm: str, patterns: str = "", rank: int = 4, alpha: float = 6.0) -> AdapterSpec:
    return AdapterSpec(rank, alpha, 0.0, "linear", algorithm, parse_patterns(patterns))  # type: ignore[arg-type]


def paths_of(model: Any) -> dict[str, str]:
    paths = [path for path, module in model.named_modules() if is_adaptable(module) and path != "lm_head"]
    return {language_key(path): path for path in paths}


def save_trained(model: Any, wanted: AdapterSpec, folder: Path, **arguments: Any) -> torch.Tensor:
    """Put adapters with random weights on a model, save them, and return the model's logits with them."""
    settings: dict[str, Any] = {"base_model": "", "dtype": torch.float32, "tokenizer": None, "chat_template": None}
    body = model.get_submodule("model")
    with adapted(body, wanted, lambda path: language_key(f"model.{path}"), RowSeeds()) as layers:
        adapters = Adapters(layers)
        torch.manual_seed(1)
        with torch.no_grad():
            for _, part, parameter in adapters.named_parameters():
                noise = torch.randn(parameter.shape) / 4
                parameter.copy_(parameter * (1 + noise) if part == "lora_magnitude_vector" else noise)
            save_adapter_folder(folder, adapters, paths_of(model), **settings | arguments)
            return model(TOKENS).logits


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_peft_computes_the_same(tmp_path: Path, kind: str, algorithm: str):
    logits = save_trained(make_model(kind), spec(algorithm), tmp_path / "adapter")
    base = make_model(kind)
    with torch.no_grad():
        plain = base(TOKENS).logits
        found = PeftModel.from_pretrained(base, tmp_path / "adapter")(TOKENS).logits
    assert (found - logits).abs().max() < 1e-5
    assert (plain - logits).abs().max() > 1e-3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ranks_and_alphas_of_layers_are_kept(tmp_path: Path, algorithm: str):
    logits = save_trained(make_model("Qwen3"), spec(algorithm, PATTERNS), tmp_path / "adapter")
    with torch.no_grad():
        found = PeftModel.from_pretrained(make_model("Qwen3"), tmp_path / "adapter")(TOKENS).logits
    assert (found - logits).abs().max() < 1e-5


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())


@pytest.mark.parametrize("algorithm", ["lora", "dora"])
def test_all_layers_of_a_lora_have_one_rank_and_alpha(tmp_path: Path, algorithm: str):
    """vLLM scales each layer by lora_alpha / r of the config, llama.cpp by lora_alpha / the layer's own rank."""
    save_trained(make_model("Qwen3"), spec(algorithm, PATTERNS), tmp_path / "adapter")
    config = config_of(tmp_path / "adapter")
    assert (config["rank_pattern"], config["alpha_pattern"], config["r"]) == ({}, {}, 4)
    with safe_open(tmp_path / "adapter" / WEIGHTS, "pt") as file:
        ranks = {file.get_tensor(name).shape[0] for name in file.keys() if ".lora_A" in name}  # noqa: SIM118
    assert ranks == {4}


def test_ranks_and_alphas_of_loha_are_in_patterns(tmp_path: Path):
    save_trained(make_model("Qwen3"), spec("loha", PATTERNS), tmp_path / "adapter")
    config = config_of(tmp_path / "adapter")
    assert config["rank_pattern"]["model.layers.0.mlp.down_proj"] == 3
    assert config["alpha_pattern"]["model.layers.1.self_attn.q_proj"] == 8


def test_layers_are_named_by_the_ends_of_their_paths_where_that_is_all(tmp_path: Path):
    save_trained(make_model("Llama"), spec("lora", "q_proj, v_proj"), tmp_path / "all")
    assert config_of(tmp_path / "all")["target_modules"] == ["q_proj", "v_proj"]
    save_trained(make_model("Llama"), spec("lora", "layers.1.self_attn.q_proj"), tmp_path / "some")
    assert config_of(tmp_path / "some")["target_modules"] == ["model.layers.1.self_attn.q_proj"]


def test_transformers_loads_the_folder_with_the_template_of_the_training(tmp_path: Path):
    """Served with another template, or without one, the model gets prompts that it was not trained on."""
    base = save_in_shards(tmp_path / "base", "Llama")
    tokens, named = tokenizer(template=None), "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    model = AutoModelForCausalLM.from_pretrained(base)
    logits = save_trained(
        model, spec("lora"), tmp_path / "adapter", base_model=str(base), tokenizer=tokens, chat_template=named
    )
    assert tokens.chat_template is None
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert (found(TOKENS).logits - logits).abs().max() < 1e-5
    loaded = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    assert loaded.apply_chat_template([{"role": "user", "content": "a sun"}], tokenize=False) == "[a sun]"
    # As many words as the model has: peft would otherwise resize the embeddings.
    assert len(loaded) == len(tokens) <= found.get_input_embeddings().num_embeddings


def test_the_folder_is_recognized_as_a_language_model_lora(tmp_path: Path):
    save_trained(make_model("Phi3"), spec("dora"), tmp_path / "adapter")
    tensors, metadata = read_lora(tmp_path / "adapter" / WEIGHTS)
    assert identify({key: tuple(one.shape) for key, one in tensors.items()}, metadata) == ARCHITECTURES["language"]


def test_a_later_save_replaces_the_folder(tmp_path: Path):
    for rank in (4, 2):
        save_trained(make_model("Llama"), spec("lora", rank=rank), tmp_path / "adapter")
    assert config_of(tmp_path / "adapter")["r"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_what_is_not_the_same_when_read_back_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lora_crucible.models.transformers.adapter_folder.same_effect", lambda *_: False)
    with pytest.raises(CrucibleError, match="14 of its 14 layers would not do what was trained"):
        save_trained(make_model("Llama"), spec("lora"), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_a_lokr_with_factors_that_peft_would_not_load_is_refused(tmp_path: Path):
    model = make_model("Llama")
    path = "model.layers.0.self_attn.q_proj"
    start = {language_key(path): {".lokr_w1": torch.randn(2, 2), ".lokr_w2": torch.randn(16, 16)}}
    wanted = AdapterSpec(4, 4.0, 0.0, "linear", start=start)
    with adapted(model, wanted, language_key, RowSeeds()) as layers:
        adapters = Adapters(layers)
        adapters.load(start)
        with pytest.raises(CrucibleError, match="1 of the 1 layers are a LoKr with other factors than PEFT's"):
            save_adapter_folder(
                tmp_path / "a",
                adapters,
                paths_of(model),
                base_model="",
                dtype=torch.float32,
                tokenizer=None,
                chat_template=None,
            )
    assert not (tmp_path / "a").exists()
