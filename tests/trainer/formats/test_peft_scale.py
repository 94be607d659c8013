"""The strength that PEFT and diffusers keep in a config beside the tensors."""

import json
import time

import pytest
import torch
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.formats.lora_model import LoraModel, load_lora
from lora_crucible.formats.peft_scale import METADATA, scale_text
from safetensors.torch import save_file

LAYERS = [f"base_model.model.transformer_blocks.{number}.attn.to_q" for number in range(12)]


def tensors(rank=4, start=""):
    return {
        f"{start}{layer}.lora_{part}.weight": torch.ones(shape)
        for layer in LAYERS
        for part, shape in (("A", (rank, 8)), ("B", (8, rank)))
    }


@pytest.fixture
def write(tmp_path):
    def written(config, name="adapter_model.safetensors", lora=None):
        path = tmp_path / name
        save_file(tensors() if lora is None else lora, path)
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "adapter_config.json").write_text(text)
        return path

    return written


def scales(path):
    read, _ = read_lora(path)
    found = []
    for layer in LAYERS:
        alpha, rank = read.get(f"{layer}.alpha"), len(read[f"{layer}.lora_A.weight"])
        found.append(1.0 if alpha is None else float(alpha) / rank)
    return found


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"r": 4, "lora_alpha": 16}, 4.0),
        ({"r": 4, "lora_alpha": 4}, 1.0),
        ({"r": 4, "lora_alpha": 8, "use_rslora": True}, 4.0),
        ({"r": 8, "lora_alpha": 8, "rank_pattern": {"to_q": 4}}, 2.0),
        ({"r": 4, "lora_alpha": 16, "alpha_pattern": {"to_q": 2}}, 0.5),
        ({"r": 4, "lora_alpha": 16, "alpha_pattern": {r".*\.attn\.to_q": 2}}, 0.5),
        ({"r": 4, "lora_alpha": 16, "alpha_pattern": {"to_k": 2, "q": 2}}, 4.0),
    ],
)
def test_alpha_and_rank_of_a_config(write, config, scale):
    path = write(config)
    assert scales(path) == [scale] * len(LAYERS)
    assert (f"Scale: {scale:g} (" in scale_text(path, {})) == (scale != 1)


def test_a_pattern_of_one_layer_is_not_that_of_its_namesakes(write):
    path = write({"r": 4, "lora_alpha": 4, "alpha_pattern": {"transformer_blocks.1.attn.to_q": 8}})
    assert scales(path) == [2.0 if number == 1 else 1.0 for number in range(12)]
    assert "Scale: 2 (" in scale_text(path, {})


def test_in_the_metadata_of_diffusers(tmp_path):
    lora = {key.replace("base_model.model", "transformer"): tensor for key, tensor in tensors().items()}
    metadata = {METADATA: json.dumps({"transformer.r": 4, "transformer.lora_alpha": 8, "text_encoder.r": 1})}
    path = tmp_path / "a.safetensors"
    save_file(lora, path, metadata)
    for found in (load_lora(path, "a"), LoraModel(lora, "a", metadata)):
        assert {float(tensor) for key, tensor in found.items() if key.endswith(".alpha")} == {8.0}


def test_alphas_of_the_file_come_first(write):
    lora = tensors() | {f"{LAYERS[0]}.alpha": torch.tensor(2.0)}
    assert scales(write({"r": 4, "lora_alpha": 16}, lora=lora)) == [0.5] + [4.0] * 11


def test_a_config_among_other_loras_is_not_theirs(write, tmp_path):
    path = write({"r": 4, "lora_alpha": 16}, name="mine.safetensors")
    assert scales(path) == [4.0] * 12
    save_file(tensors(), tmp_path / "other.sft")
    assert scales(path) == [1.0] * 12
    assert scale_text(path, {}) == ""


def test_a_changed_config_is_read_again(write, tmp_path):
    path = write({"r": 4, "lora_alpha": 16})
    assert float(load_lora(path, "a")[f"{LAYERS[0]}.alpha"]) == 16
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 128}))
    assert float(load_lora(path, "a")[f"{LAYERS[0]}.alpha"]) == 128


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("{", "not valid JSON"),
        ("[1]", "no config of a LoRA"),
        ("[" * 100_000, "nested too deeply"),
        ({"r": 4, "lora_alpha": "many"}, "are no numbers"),
        ({"r": 4, "lora_alpha": float("nan")}, "are no numbers"),
        ({"r": 4, "lora_alpha": 10**400}, "are no numbers"),
        ({"r": 4, "lora_alpha": 0}, "is not plausible"),
        ({"r": 16, "lora_alpha": 16}, "it is for rank 16, and the LoRA has rank 4"),
        (" " * 2_000_000, "larger than 1 MB"),
    ],
)
def test_a_config_that_cannot_count_is_told(write, config, problem):
    path = write(config)
    assert scales(path) == [1.0] * 12
    text = scale_text(path, {})
    assert text.startswith("adapter_config.json was not used")
    assert problem in text


def test_hostile_patterns_take_no_time(write):
    patterns = {"(a+)+$": 2, "(((a|aa)*)*)*b": 2, ".*.*.*.*.*.*.*z": 2, "(": 2, "x" * 10_000 + "*": 2}
    started = time.perf_counter()
    assert scales(write({"r": 4, "lora_alpha": 16, "alpha_pattern": patterns})) == [4.0] * 12
    assert time.perf_counter() - started < 2
