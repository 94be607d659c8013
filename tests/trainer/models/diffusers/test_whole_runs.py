"""Whole runs on a tiny pipeline of every family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from lora_crucible.config import DataSettings, parse_config
from lora_crucible.data.images.load import load_dataset
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.training.result import RunResult
from lora_crucible.training.resume import train_or_resume

pytestmark = pytest.mark.usefixtures("no_curves", "checkpoints_in_time")

QUICK = {
    "train_data_dir": "demo",
    "resolution": 64,
    "max_train_steps": 6,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "lora_rank": 2,
    "lora_dropout": 0.1,
    "sample_every_n_steps": 4,
    "sample_steps": 2,
    "sample_prompts": "a red circle",
    "save_precision": "fp32",
    "save_steps": 3,
    "measure": "never",
}


class Stop(BaseException):
    pass


def train(folder: Path, base: Path, stop_after: int | None = None, **values: Any) -> RunResult:
    """Train on four images of the demo, as the command line does."""
    config = parse_config({**QUICK, "base_model": str(base), **values})
    dataset = load_dataset(DataSettings(train_data_dir="demo"))
    dataset = replace(dataset, images=dataset.images[:4])

    def stepped(report: Any, steps: int) -> None:
        if report.step == stop_after:
            raise Stop

    model = DiffusersBaseModel(str(base))
    return train_or_resume(model, dataset, config, folder, folder, Callbacks(stepped=stepped))


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny_pipelines.DENOISERS)
def test_a_run_in_two_parts_equals_one_in_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_pipelines.narrow_flux_loras(monkeypatch)
    base = tiny_pipelines.saved(name, tmp_path / "base")
    whole = train(tmp_path / "one", base)
    with pytest.raises(Stop):
        train(tmp_path / "two", base, stop_after=4)
    parts = train(tmp_path / "two", base)
    assert parts.losses == whole.losses[-len(parts.losses) :]
    one, other = read_lora(whole.files.lora)[0], read_lora(parts.files.lora)[0]
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    pictures = list(whole.files.folder.glob("**/*.png"))
    assert pictures


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny_pipelines.DENOISERS)
def test_bf16_and_checkpointing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_pipelines.narrow_flux_loras(monkeypatch)
    base = tiny_pipelines.saved(name, tmp_path / "base", dtype=torch.bfloat16)
    result = train(tmp_path / "out", base, mixed_precision="bf16", gradient_checkpointing=True)
    assert all(loss > 0 for loss in result.losses)
    assert all(tensor.isfinite().all() for tensor in read_lora(result.files.lora)[0].values())


@pytest.mark.parametrize("name", ["sd3", "flux1", "qwen_image"])
def test_weights_keep_the_dtype_of_their_files(name: str, tmp_path: Path) -> None:
    """A large model in float32 would not fit into main memory, and a VAE in 16 bits is not exact."""
    model = DiffusersBaseModel(str(tiny_pipelines.saved(name, tmp_path / "base", dtype=torch.bfloat16)))
    assert {weight.dtype for weight in model._denoiser.parameters()} == {torch.bfloat16}
    assert model._pipeline.vae.dtype == torch.float32
    clips = [part for part in model._pipeline.text_encoders().values() if type(part).__name__.startswith("CLIP")]
    others = [part for part in model._pipeline.text_encoders().values() if part not in clips]
    assert all(part.dtype == torch.float32 for part in clips)
    assert all(part.dtype == torch.bfloat16 for part in others)


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny_pipelines.DENOISERS)
def test_a_model_without_weights_has_the_layers_of_the_model(name: str, tmp_path: Path) -> None:
    folder = str(tiny_pipelines.saved(name, tmp_path / "base"))
    outline, whole = DiffusersBaseModel(folder, weights=False), DiffusersBaseModel(folder)
    assert outline.layer_shapes() == whole.layer_shapes()
    assert outline.facts == whole.facts
    assert outline.device.type == "meta"
