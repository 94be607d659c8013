"""Whole runs that are measured while they train: on the demo model, or on the toy where the model does not matter."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lora_crucible.adapters.peft_layers import ADAPTER_NAME
from lora_crucible.adapters.spec import AdapterSpec
from lora_crucible.config import DataSettings, parse_config
from lora_crucible.data.cache import TensorCache
from lora_crucible.data.images.dataset import ImageDataset
from lora_crucible.data.images.examples import fixed_examples
from lora_crucible.data.images.load import load_dataset
from lora_crucible.demo import DATASET_DIR
from lora_crucible.evaluation.validation import Validation
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.runs.paths import RunFiles
from lora_crucible.training.plan import plan_run
from lora_crucible.training.result import RunResult
from lora_crucible.training.run import run_training
from PIL import Image
from toy import Numbers, Toy

pytestmark = pytest.mark.usefixtures("no_curves")

QUICK = {
    "lora_alpha": 8,
    "batch_size": 4,
    "sample_steps": 2,
    "sample_every_n_steps": 999,
    "save_precision": "fp32",
}


TOY = {"target_modules": "linear", "learning_rate": 0.05}


@pytest.fixture(scope="module")
def demo_model() -> DiffusersBaseModel:
    return DiffusersBaseModel("demo")


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    """5 images to train, 4 for validation."""
    whole = load_dataset(DataSettings(train_data_dir="demo", validation_percent=20))
    return replace(whole, images=whole.images[:5])


def train(base_model, dataset, folder: Path, hooks: Callbacks | None = None, **values) -> RunResult:
    files = RunFiles.claim("lora", folder, folder)
    return run_training(base_model, plan_run(base_model, dataset, parse_config({**QUICK, **values})), files, hooks)


@pytest.fixture(scope="module")
def overdone(demo_model, dataset, tmp_path_factory) -> RunResult:
    """A learning rate that is far too high."""
    folder = tmp_path_factory.mktemp("overdone")
    settings = {"max_train_steps": 80, "learning_rate": 5e-2, "validate_every_n_steps": 8}
    # On auto, a busy machine would take too long to be measured after so short a run.
    return train(demo_model, dataset, folder, measure="always", **settings)


def validation_error(base_model, dataset: ImageDataset, lora: Path) -> float:
    """Of a LoRA file, measured anew."""
    tensors, _ = read_lora(lora)
    spec = AdapterSpec(8, 8.0, 0.0, "attention_and_feed_forward")
    with base_model.session("auto"), base_model.attached(spec, False) as adapters:
        samples = fixed_examples(dataset.settings, dataset.validation, 64)
        cached = base_model.cache_inputs(samples, TensorCache(None), 0.0, True, lambda *_: None)
        for key, layer in adapters._layers.items():
            layer.adapter.lora_A[ADAPTER_NAME].weight.data.copy_(tensors[f"{key}.lora_down.weight"])
            layer.adapter.lora_B[ADAPTER_NAME].weight.data.copy_(tensors[f"{key}.lora_up.weight"])
        with adapters.without_dropout():
            validation = Validation(base_model, cached, cached[:1], 4, dataset.settings.validation_seed)
            return validation.measure(0, 0.0).held_out


def test_too_high_a_learning_rate_is_detected_and_stopped(overdone):
    assert overdone.verdict.word == "too much"
    assert len(overdone.losses) < 80
    assert "finished early" in overdone.report
    assert "3 measurements in a row" in overdone.report
    assert "Verdict: TOO MUCH" in overdone.report
    assert "learning_rate" in overdone.report.split("Next: ")[1]


def test_the_lora_is_the_best_state_and_the_last_lies_beside_it(overdone, demo_model, dataset):
    best = min(overdone.rounds[1:], key=lambda one: one.held_out)
    last = overdone.rounds[-1]
    assert best.held_out < last.held_out
    last_file = overdone.files.folder / "last.safetensors"
    assert validation_error(demo_model, dataset, overdone.files.lora) == pytest.approx(best.held_out, rel=1e-3)
    assert validation_error(demo_model, dataset, last_file) == pytest.approx(last.held_out, rel=1e-3)
    assert f"best state, after step {best.step}" in overdone.report
    assert str(last_file) in overdone.report


def test_files_say_which_state_they_hold_and_how_it_was_measured(overdone):
    _, metadata = read_lora(overdone.files.lora)
    _, of_last = read_lora(overdone.files.folder / "last.safetensors")
    facts = json.loads(metadata["crucible.validation"])
    assert int(metadata["ss_steps"]) == facts["best_step"]
    assert int(of_last["ss_steps"]) == facts["last_step"] == len(overdone.losses)
    assert facts["best"] < facts["start"] < 1
    assert metadata["crucible.version"] == of_last["crucible.version"]


def test_the_model_that_is_handed_on_is_the_best_state_too(overdone):
    tensors, _ = read_lora(overdone.files.lora)
    assert all(torch.equal(tensors[key], overdone.lora[key]) for key in tensors)


def test_pictures_are_measured_and_shown(overdone):
    for figure in ("Effect:", "Drift:", "Variety:", "Likeness", 'Trigger word "crux"'):
        assert figure in overdone.report
    moved = re.search(r"images of the captions changed by ([\d.]+)", overdone.report)
    assert float(moved[1]) > 0.1
    assert Image.open(overdone.files.folder / "measures.png").size == (12 * 64, 2 * 64)


def test_too_short_a_run_is_too_little(demo_model, dataset, tmp_path):
    result = train(demo_model, dataset, tmp_path, max_train_steps=8, validate_every_n_steps=2)
    assert result.verdict.word == "too little"
    assert "still falling" in result.report
    assert [one.step for one in result.rounds] == [0, 2, 4, 6, 8]
    assert "No images were measured, because the run has fewer than 50 steps" in result.report


def test_measuring_changes_nothing_that_is_trained(base_model, dataset, tmp_path):
    unwatched = replace(dataset, validation=())
    settings = {"max_train_steps": 3, "lora_dropout": 0.2, "purpose": "style", "lora_rank": 8}
    plain = train(base_model, unwatched, tmp_path, measure="never", **settings)
    measured = train(base_model, unwatched, tmp_path, measure="always", **settings)
    validated = train(base_model, dataset, tmp_path, measure="never", **settings)
    assert plain.losses == measured.losses == validated.losses
    assert all(torch.equal(plain.lora[key], validated.lora[key]) for key in plain.lora)
    assert all(torch.equal(one, two) for one, two in zip(plain.samples, measured.samples, strict=True))


def test_a_short_run_without_validation_is_as_before(base_model, dataset, tmp_path, monkeypatch):
    drawn, draw = [], base_model.previewer.draw
    monkeypatch.setattr(base_model.previewer, "draw", lambda sampling: drawn.append(sampling) or draw(sampling))
    result = train(base_model, replace(dataset, validation=()), tmp_path, max_train_steps=4)
    assert len(drawn) == len(result.samples) == 2
    assert result.rounds == []
    assert not (result.files.folder / "last.safetensors").exists()
    assert not (result.files.folder / "measures.png").exists()
    assert "Validation" not in result.report
    assert "erdict" not in result.report
    assert "crucible.validation" not in read_lora(result.files.lora)[1]


def test_without_validation_training_images_are_measured_three_times(base_model, dataset, tmp_path):
    result = train(base_model, replace(dataset, validation=()), tmp_path, max_train_steps=6, measure="always")
    assert [one.step for one in result.rounds] == [0, 3, 6]
    assert all(one.held_out is None for one in result.rounds)
    assert "No image was held out for validation" in result.report


def test_dropout_is_off_while_measuring(demo_model, dataset, tmp_path):
    """What is measured during the run is what the file does."""
    dropping = replace(dataset, settings=dataset.settings.model_copy(update={"caption_dropout_rate": 1.0}))
    settings = {"max_train_steps": 6, "validate_every_n_steps": 6, "learning_rate": 3e-2}
    result = train(demo_model, dropping, tmp_path, lora_dropout=0.8, **settings)
    assert validation_error(demo_model, dataset, result.files.lora) == pytest.approx(
        result.rounds[-1].held_out, rel=1e-4
    )


def test_patience_zero_goes_on_to_the_end(tmp_path):
    settings = {**TOY, "max_train_steps": 4, "validate_every_n_steps": 1, "early_stopping_threshold": 1.0}
    assert len(train(Toy(), Numbers(held_out=(3.0, 5.0)), tmp_path, **settings).losses) == 3
    assert len(train(Toy(), Numbers(held_out=(3.0, 5.0)), tmp_path, early_stopping_patience=0, **settings).losses) == 4


def test_cancelling_keeps_the_better_state_and_gives_no_verdict_on_the_length(base_model, dataset, tmp_path):
    def stop_after_five(report, steps):
        if report.step == 5:
            raise KeyboardInterrupt

    settings = {"max_train_steps": 60, "validate_every_n_steps": 2}
    with pytest.raises(KeyboardInterrupt):
        train(base_model, dataset, tmp_path, Callbacks(stepped=stop_after_five), **settings)
    report = (tmp_path / "lora" / "report.txt").read_text()
    assert "cancelled after 5 of 60 steps" in report
    assert "No verdict. The run was stopped before its end" in report
    assert not (tmp_path / "lora" / "measures.png").exists()
    assert int(read_lora(tmp_path / "lora.safetensors")[1]["ss_steps"]) == 5


def test_an_image_that_does_not_belong_is_named(demo_model, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        for extension in ("png", "txt"):
            name = f"{number:02}.{extension}"
            (folder / name).write_bytes((DATASET_DIR / name).read_bytes())
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "noise.txt").write_text("crux, a red circle on a white background")
    dataset = load_dataset(DataSettings(train_data_dir=str(folder), trigger_word="crux", resolution=64))
    settings = {"max_train_steps": 60, "batch_size": 3, "measure": "never"}  # each image 30 times
    plain = train(demo_model, dataset, tmp_path, **settings)
    assert "Hard to learn: noise.png" in plain.report


def test_hard_images_count_half_if_asked_for(tmp_path):
    numbers = Numbers((1.0, 1.1, 1.2, 1.3, 9.0))
    settings = {**TOY, "max_train_steps": 60, "batch_size": 3}
    plain = train(Toy(), numbers, tmp_path, **settings)
    assert "Hard to learn: 9.0" in plain.report
    weighted = train(Toy(), numbers, tmp_path, downweight_hard_images=True, **settings)
    assert "They counted half" in weighted.report
    assert weighted.losses != plain.losses
