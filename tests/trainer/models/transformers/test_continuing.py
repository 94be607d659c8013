"""Training of language models that starts from adapters of other programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lora_crucible.adapters.adapters import Adapters
from lora_crucible.adapters.dropout import RowSeeds
from lora_crucible.adapters.peft_layers import adapted
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.adapters.targets import is_adaptable
from lora_crucible.config import parse_config
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.architectures import ARCHITECTURES
from lora_crucible.formats.language_file import in_comfyui_names
from lora_crucible.formats.layer_names import language_key
from lora_crucible.formats.lora_file import to_state_dict, write_lora
from lora_crucible.formats.names import place_of
from lora_crucible.models.initial_lora import InitialLora, load_initial_lora
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, get_peft_model
from random_models import make_model
from transformers import PreTrainedModel

TOKENS = torch.tensor([[1, 3, 5, 6, 8, 2]])
TARGETS = ["q_proj", "v_proj", "down_proj"]
CONFIGS: dict[str, PeftConfig] = {
    "LoRA": LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, init_lora_weights=False),
    "rsLoRA": LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=TARGETS, init_lora_weights=False),
    "DoRA": LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=TARGETS, init_lora_weights=False),
    "patterns": LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=TARGETS,
        rank_pattern={"q_proj": 2},
        alpha_pattern={"v_proj": 1},
        init_lora_weights=False,
    ),
    "LoHa": LoHaConfig(r=3, alpha=6, target_modules=TARGETS, init_weights=False),
    "LoKr": LoKrConfig(r=3, alpha=6, target_modules=TARGETS, init_weights=False),
    "LoKr of whole matrices": LoKrConfig(
        r=3,
        alpha=6,
        target_modules=TARGETS,
        rank_pattern={"q_proj": 64},
        alpha_pattern={"q_proj": 32},
        init_weights=False,
    ),
}


def base_model(model: PreTrainedModel) -> Any:
    """Return as much of a base model as is needed to start from a LoRA."""
    shapes = {
        language_key(path): tuple(module.weight.shape) for path, module in model.named_modules() if is_adaptable(module)
    }
    return SimpleNamespace(
        name="tiny",
        architecture=ARCHITECTURES["language"],
        layer_shapes=lambda: shapes,
        place_of=lambda name: place_of(name, ARCHITECTURES["language"]),
    )


def initial(path: Path, model: PreTrainedModel, **values: Any) -> InitialLora:
    config = parse_config({"continue_from": str(path), **values})
    found = load_initial_lora(config, base_model(model))
    assert found is not None
    return found


@contextmanager
def started(model: PreTrainedModel, lora: InitialLora) -> Iterator[Adapters]:
    spec = AdapterSpec(lora.rank, lora.alpha, 0.0, "linear", start=lora.layers)
    with adapted(model, spec, language_key, RowSeeds()) as layers:
        adapters = Adapters(layers)
        adapters.initialise(0)
        adapters.load(lora.layers)
        yield adapters


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_first_step_computes_what_the_adapter_did(tmp_path: Path, kind: str):
    torch.manual_seed(3)
    published = get_peft_model(make_model("Llama"), CONFIGS[kind])
    with torch.no_grad():
        for name, parameter in published.named_parameters():
            if "lora_" in name or "hada_" in name or "lokr_" in name:
                parameter.mul_(torch.rand(parameter.shape) + 0.5)
    published.save_pretrained(tmp_path / "writer")
    expected = published(TOKENS).logits
    model = make_model("Llama")
    lora = initial(tmp_path / "writer", model)
    assert lora.name == "writer"
    with started(model, lora):
        assert (model(TOKENS).logits - expected).abs().max() < 1e-5
    assert (model(TOKENS).logits - expected).abs().max() > 1e-3


def test_a_language_model_is_no_text_encoder_that_is_trained_beside(tmp_path: Path):
    model = make_model("Llama")
    get_peft_model(make_model("Llama"), CONFIGS["LoRA"]).save_pretrained(tmp_path / "writer")
    lora = initial(tmp_path / "writer", model)
    config = lora.settings(parse_config({"continue_from": str(tmp_path / "writer")}))
    assert not config.train_text_encoder
    with started(model, lora) as adapters:
        assert len(adapters.parameters(of_text_encoder=False)) == len(adapters.parameters())


@pytest.mark.parametrize("algorithm", ["lora", "dora", "loha", "lokr"])
def test_our_own_file_is_continued(tmp_path: Path, algorithm: str):
    model = make_model("Llama")
    paths = {language_key(path): path for path, _ in model.named_modules()}
    spec = AdapterSpec(4, 6.0, 0.0, "attention", algorithm)  # type: ignore[arg-type]
    with adapted(model, spec, language_key, RowSeeds()) as layers:
        adapters = Adapters(layers)
        with torch.no_grad():
            for _, part, parameter in adapters.named_parameters():
                parameter.mul_(1.2) if part == "lora_magnitude_vector" else parameter.normal_(std=0.3)
        expected = model(TOKENS).logits
        tensors = in_comfyui_names(to_state_dict(adapters.layers(), torch.float32), paths)
    write_lora(tmp_path / "writer.safetensors", tensors, {})
    with started(model, initial(tmp_path / "writer.safetensors", model)):
        assert (model(TOKENS).logits - expected).abs().max() < 1e-5


def test_a_dora_of_peft_gets_another_rank(tmp_path: Path):
    published = get_peft_model(make_model("Llama"), CONFIGS["DoRA"])
    published.save_pretrained(tmp_path / "writer")
    model = make_model("Llama")
    with started(model, initial(tmp_path / "writer", model, lora_rank=8)):
        assert (model(TOKENS).logits - published(TOKENS).logits).abs().max() < 1e-5


def test_an_adapter_for_a_model_of_another_size_is_refused(tmp_path: Path):
    model = make_model("Llama")
    path = "text_encoders.transformer.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    tensors = {
        path.format(n, part): torch.ones(*shape) for n in (0, 1) for part, shape in (("A", (2, 64)), ("B", (64, 2)))
    }
    write_lora(tmp_path / "other.safetensors", tensors, {})
    with pytest.raises(CrucibleError, match="has 2 of its 2 layers, and 2 of these have a different size"):
        initial(tmp_path / "other.safetensors", model)


def test_embeddings_of_another_vocabulary_are_skipped_and_named(tmp_path: Path):
    """Trainers that add tokens save whole embeddings, which do not fit the base model's vocabulary."""
    model = make_model("Llama")
    path = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    tensors = {path.format("A"): torch.ones(2, 32), path.format("B"): torch.ones(32, 2)}
    tensors["base_model.model.model.embed_tokens.weight"] = torch.ones(42, 32)
    write_lora(tmp_path / "added.safetensors", tensors, {})
    notes = initial(tmp_path / "added.safetensors", model).notes
    assert any("1 of its parts were skipped" in note and "embed_tokens" in note for note in notes)
