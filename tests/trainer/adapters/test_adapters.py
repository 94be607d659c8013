"""Every algorithm trains, saves and leaves the model unchanged, without ComfyUI too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.config import DataSettings, parse_config
from lora_crucible.data.images.load import load_dataset
from lora_crucible.formats.layer_names import is_of_text_encoder
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.runs.paths import RunFiles
from lora_crucible.training.plan import plan_run
from lora_crucible.training.result import RunResult
from lora_crucible.training.run import run_training
from peft.tuners.lora import LoraLayer

SUFFIXES = {
    "lora": {"lora_down.weight", "lora_up.weight", "alpha"},
    "rslora": {"lora_down.weight", "lora_up.weight", "alpha"},
    "dora": {"lora_down.weight", "lora_up.weight", "alpha", "dora_scale"},
    "loha": {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"},
    "lokr": {"lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_w1", "lokr_w2", "alpha"},
}


pytestmark = pytest.mark.usefixtures("no_curves")


def train(base_model: DiffusersBaseModel, folder: Path, **values) -> RunResult:
    quick = {"max_train_steps": 2, "batch_size": 2, "sample_steps": 1, "sample_prompts": "crux", "learning_rate": 1e-3}
    before = base_model.identity()
    files = RunFiles.claim("lora", folder, folder)
    dataset = load_dataset(DataSettings(train_data_dir="demo"))
    result = run_training(base_model, plan_run(base_model, dataset, parse_config({**quick, **values})), files)
    assert base_model.identity() == before
    return result


@pytest.mark.parametrize("algorithm", SUFFIXES)
def test_each_algorithm_has_the_keys_that_loaders_look_for(base_model, tmp_path: Path, algorithm: str) -> None:
    result = train(base_model, tmp_path, algorithm=algorithm, target_modules="linear_and_convolution", lora_rank=4)
    tensors, _ = read_lora(result.files.lora)
    assert {key.partition(".")[2] for key in tensors} <= SUFFIXES[algorithm]
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    first, *_, last = (samples.mean().item() for samples in result.samples)
    assert first != last


def test_the_alpha_of_rslora_is_what_readers_need(base_model, tmp_path: Path) -> None:
    """Programs that read the file scale by alpha / rank, while rslora scales by alpha / sqrt(rank)."""
    tensors, _ = read_lora(train(base_model, tmp_path, algorithm="rslora", lora_rank=16, lora_alpha=2).files.lora)
    assert {tensor.item() for key, tensor in tensors.items() if key.endswith(".alpha")} == {2 * 16**0.5}


def test_only_the_same_seed_gives_the_same_start(base_model) -> None:
    starts = []
    for seed in (1, 1, 2):
        spec = AdapterSpec(4, 4.0, 0.0, "attention", "lokr", text_encoder=True)
        with base_model.session("fp32"), base_model.attached(spec, False) as adapters:
            torch.rand(seed)
            adapters.initialise(seed)
            starts.append(torch.cat([parameter.detach().flatten() for parameter in adapters.parameters()]))
            assert len(adapters.parameters()) == sum(len(adapters.parameters(part)) for part in (True, False))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_diffusers_loads_the_text_encoders_part(base_model, small_model, tmp_path: Path) -> None:
    result = train(base_model, tmp_path, train_text_encoder=True)
    tensors, metadata = read_lora(result.files.lora)
    layers = {key.partition(".")[0] for key in tensors if is_of_text_encoder(key)}
    assert layers
    assert float(metadata["ss_text_encoder_lr"]) == pytest.approx(5e-4)
    pipeline = StableDiffusionPipeline.from_pretrained(small_model)
    before = pipeline.encode_prompt("crux", "cpu", 1, False)[0]
    pipeline.load_lora_weights(result.files.lora.parent, weight_name=result.files.lora.name)
    assert sum(isinstance(module, LoraLayer) for module in pipeline.text_encoder.modules()) == len(layers)
    assert not torch.allclose(pipeline.encode_prompt("crux", "cpu", 1, False)[0], before, atol=1e-5)
