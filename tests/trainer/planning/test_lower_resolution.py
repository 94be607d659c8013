"""A run that fits into memory only at a lower resolution uses that, if the user allows it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from lora_crucible.config import parse_config
from lora_crucible.config.data_settings import DataSettings
from lora_crucible.data.images.load import load_dataset
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.memory.step_memory import NothingFits
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.planning import lower_resolution
from lora_crucible.planning.lower_resolution import next_lower
from lora_crucible.training.result import RunResult
from lora_crucible.training.resume import train_or_resume
from out_of_memory import Faults

SETTINGS = {
    "max_train_steps": 3,
    "batch_size": 1,
    "sample_steps": 1,
    "sample_prompts": "crux",
    "sample_every_n_steps": 2,
    "measure": "never",
}


@pytest.mark.parametrize(("resolution", "lower"), [(1024, 768), (768, 576), (576, 384), (448, 384), (384, None)])
def test_it_falls_by_a_quarter_to_384_at_least(complete, resolution, lower):
    assert next_lower(complete(resolution=resolution, allow_lower_resolution=True)) == lower
    assert next_lower(complete(resolution=resolution)) is None


def test_other_resolutions_fall_with_it():
    dataset = load_dataset(DataSettings(train_data_dir="demo", resolution=1024, extra_resolutions="512, 768"))
    assert dataset.at_resolution(768).settings.resolutions(0) == (768, 512)


@pytest.fixture
def dataset():
    whole = load_dataset(DataSettings(train_data_dir="demo", validation_percent=0))
    return replace(whole, images=whole.images[:2])


@pytest.fixture
def base_model(small_model, monkeypatch):
    """Make a base model that has memory for no more than 48 x 48 pixels, because it is tiny too."""
    monkeypatch.setattr(lower_resolution, "LEAST", 48)
    monkeypatch.setattr(lower_resolution, "STEP", 16)
    model = DiffusersBaseModel(small_model)
    model.faults = Faults(model, monkeypatch)
    model.faults.fits = lambda rows: rows[0].size <= 48**2
    return model


def train(base_model, dataset, folder, hooks: Callbacks | None = None, **values) -> RunResult:
    return train_or_resume(base_model, dataset, parse_config({**SETTINGS, **values}), folder, folder, hooks)


def test_only_when_the_user_allows_it(base_model, dataset, tmp_path):
    with pytest.raises(NothingFits, match=r"lower resolution \(it is 64; allow_lower_resolution lowers it"):
        train(base_model, dataset, tmp_path)
    assert list(tmp_path.glob("*.safetensors")) == []


def test_the_run_then_ends_well_and_says_so(base_model, dataset, tmp_path):
    result = train(base_model, dataset, tmp_path, allow_lower_resolution=True)
    assert len(result.losses) == 3
    assert "2 images at 48 px" in result.report
    assert "Trained at resolution 48, because there was not enough memory for 64" in result.report
    assert {one.shape[1:3] for one in result.samples} == {(48, 48)}


def test_in_the_middle_of_a_run_it_goes_on_from_there(base_model, dataset, tmp_path):
    base_model.faults.fits = lambda rows: True

    def memory_is_taken(report, steps):
        if report.step == 2:
            base_model.faults.fits = lambda rows: rows[0].size <= 48**2

    hooks = Callbacks(stepped=memory_is_taken)
    result = train(base_model, dataset, tmp_path, hooks, allow_lower_resolution=True)
    lines = [json.loads(line) for line in (result.files.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert "not enough memory for 64" in result.report
    # Samples of two sizes could not be one batch of images for other nodes.
    assert {one.shape[1:3] for one in result.samples} == {(48, 48)}


def test_an_interrupted_run_goes_on_at_the_lower_resolution(base_model, dataset, tmp_path):
    def interrupt(report, steps):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(base_model, dataset, tmp_path, Callbacks(stepped=interrupt), allow_lower_resolution=True)
    base_model.faults.passes.clear()
    result = train(base_model, dataset, tmp_path, allow_lower_resolution=True)
    assert "Resumed after step 1" in result.report
    assert "2 images at 48 px" in result.report
