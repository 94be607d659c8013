"""Whole runs. Those that do not depend on the model train the toy, most others a small model through diffusers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lora_crucible.config import parse_config
from lora_crucible.config.yaml_file import read_config
from lora_crucible.errors import CrucibleError
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.formats.names import Place
from lora_crucible.memory import storage
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.runs.paths import RunFiles
from lora_crucible.training.plan import plan_run
from lora_crucible.training.result import RunResult
from lora_crucible.training.run import run_training
from toy import Numbers, Toy

pytestmark = pytest.mark.usefixtures("no_curves")

QUICK = {"max_train_steps": 4, "batch_size": 4, "sample_steps": 2, "sample_every_n_steps": 99, "save_precision": "fp32"}
TOY = {"target_modules": "linear", "sample_prompts": "one\ntwo"}
TIMES_AND_NAMES = {
    "ss_output_name",
    "ss_session_id",
    "ss_training_started_at",
    "ss_training_finished_at",
    "modelspec.title",
    "modelspec.date",
}


@pytest.fixture(scope="module")
def demo_model() -> DiffusersBaseModel:
    return DiffusersBaseModel("demo")


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    return Numbers(range(1, 21))


def train(base_model, dataset, folder: Path, hooks: Callbacks | None = None, **values) -> RunResult:
    files = RunFiles.claim("lora", folder, folder)
    return run_training(base_model, plan_run(base_model, dataset, parse_config({**QUICK, **values})), files, hooks)


def test_same_seed_same_tensors_and_metadata(base_model, dataset, tmp_path):
    first = train(base_model, dataset, tmp_path, lora_dropout=0.1)
    torch.rand(5)  # the state of the global generator does not matter
    second = train(base_model, dataset, tmp_path, lora_dropout=0.1)
    other = train(base_model, dataset, tmp_path, lora_dropout=0.1, seed=7)
    assert first.files.lora != second.files.lora
    one, metadata = read_lora(first.files.lora)
    two, other_metadata = read_lora(second.files.lora)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert one.keys() == two.keys()
    differing = {key for key in metadata if metadata[key] != other_metadata[key]}
    assert differing <= TIMES_AND_NAMES
    three, _ = read_lora(other.files.lora)
    assert not any(torch.equal(one[key], three[key]) for key in one if not key.endswith(".alpha"))


def test_a_run_trains_and_leaves_all_its_files(demo_model, dataset, tmp_path, monkeypatch):
    monkeypatch.undo()  # all, so its curves too
    result = train(demo_model, dataset, tmp_path, max_train_steps=6, sample_every_n_steps=3, noise_offset=0.05)
    tensors, metadata = read_lora(result.files.lora)
    assert all(tensor.abs().max() > 0 for tensor in tensors.values())
    assert metadata["modelspec.trigger_phrase"] == dataset.trigger_word
    assert metadata["ss_steps"] == "6"
    assert metadata["ss_noise_offset"] == "0.05"
    lines = [json.loads(line) for line in (result.files.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in lines] == result.losses
    assert [len(line["images"]) for line in lines] == [4] * 6
    assert all(line["errors"] and line["memory_gb"] > 0 and line["seconds"] > 0 for line in lines)
    assert [line["learning_rates"]["model"] for line in lines] == sorted(
        (line["learning_rates"]["model"] for line in lines), reverse=True
    )
    assert list(result.files.folder.glob("events.out.tfevents.*"))
    assert len(result.samples) == 3  # before, in the middle, at the end
    assert len(list((result.files.folder / "samples").glob("*.png"))) == 3 * len(result.samples[0])
    config = yaml.safe_load((result.files.folder / "config.yaml").read_text())
    assert config["train_data_dir"] == "demo"
    parse_config(config)  # can be trained again as it is
    for fact in (str(result.files.lora), "6 of 6 steps", "20 images", "parameters"):
        assert fact in result.report


def test_model_is_as_before_after_a_run(base_model, dataset, tmp_path):
    before = base_model.identity()
    classes = [type(module) for module in base_model._denoiser.modules()]
    train(base_model, dataset, tmp_path)
    assert base_model.identity() == before
    assert [type(module) for module in base_model._denoiser.modules()] == classes


def test_a_fresh_model_has_the_identity_that_it_has_after_a_session(small_model):
    """Else its first run is not known again by the second one in the same process."""
    fresh = DiffusersBaseModel(small_model)
    before = fresh.identity(), fresh.encoders_identity()
    with fresh.session("fp32"):
        pass
    assert (fresh.identity(), fresh.encoders_identity()) == before


def test_stopping_keeps_what_was_trained(toy, numbers, tmp_path):
    def stop_after_three(report, steps):
        if report.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(toy, numbers, tmp_path, Callbacks(stepped=stop_after_three), max_train_steps=50, **TOY)
    tensors, metadata = read_lora(tmp_path / "lora.safetensors")
    assert metadata["ss_steps"] == "3"
    assert any(tensor.abs().max() > 0 for key, tensor in tensors.items() if "lora_up" in key)
    assert "cancelled after 3 of 50 steps" in (tmp_path / "lora" / "report.txt").read_text()


def test_stopping_before_the_first_step_leaves_nothing(toy, numbers, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(toy, numbers, tmp_path, Callbacks(preparing=stop), **TOY)
    with pytest.raises(KeyboardInterrupt):
        train(toy, numbers, tmp_path, Callbacks(sampled=stop), **TOY)
    assert list(tmp_path.iterdir()) == []


def test_epochs_count_passes_over_the_images(toy, numbers, tmp_path):
    result = train(toy, numbers, tmp_path, max_train_steps=None, epochs=2, batch_size=8, **TOY)
    assert len(result.losses) == 2 * 3
    _, metadata = read_lora(result.files.lora)
    assert metadata["ss_epoch"] == "2"


def test_rank_alpha_and_layers_are_what_was_asked(base_model, dataset, tmp_path):
    result = train(base_model, dataset, tmp_path, lora_rank=3, lora_alpha=1.5, target_modules="attention")
    tensors, _ = read_lora(result.files.lora)
    assert {tensor.shape[0] for key, tensor in tensors.items() if "lora_down" in key} == {3}
    assert {float(tensor) for key, tensor in tensors.items() if key.endswith(".alpha")} == {1.5}
    assert all("_attn" in key for key in tensors)


PACKAGES = {"lion": "lion_pytorch", "prodigy": "prodigyopt", "schedule_free_adamw": "schedulefree"}


@pytest.mark.parametrize("optimizer", ["adafactor", "lion", "prodigy", "schedule_free_adamw"])
def test_each_optimizer_trains(toy, numbers, tmp_path, optimizer):
    pytest.importorskip(PACKAGES.get(optimizer, "torch"))
    result = train(toy, numbers, tmp_path, optimizer=optimizer, max_train_steps=6, sample_every_n_steps=3, **TOY)
    tensors, metadata = read_lora(result.files.lora)
    assert all(tensor.abs().max() > 0 for tensor in tensors.values())
    assert optimizer.replace("_", "").removesuffix("adamw") in metadata["ss_optimizer"].lower()
    assert (
        f"learning_rate = {yaml.safe_load((result.files.folder / 'config.yaml').read_text())['learning_rate']:g}: "
        in (result.report)
    )
    repeated = train(toy, numbers, tmp_path, optimizer=optimizer, max_train_steps=6, sample_every_n_steps=99, **TOY)
    again, _ = read_lora(repeated.files.lora)
    assert all(torch.equal(tensors[key], again[key]) for key in tensors)  # samples between do not touch the training


STEADY = {"learning_rate": 0.01, "lr_scheduler": "constant", "lr_warmup_steps": 0}


def assert_lags_behind(averaged: Path, plain: Path) -> None:
    """B starts at zero and grows, so its average is smaller."""
    (average, _), (last, _) = read_lora(averaged), read_lora(plain)
    for key in last:
        assert "lora_up" not in key or 0 < average[key].norm() < last[key].norm(), key


def test_the_file_and_the_samples_have_the_averaged_weights(toy, numbers, tmp_path):
    plain = train(toy, numbers, tmp_path, max_train_steps=6, **STEADY, **TOY)
    averaged = train(toy, numbers, tmp_path, max_train_steps=6, ema_decay=0.9, **STEADY, **TOY)
    assert plain.losses == averaged.losses
    assert plain.samples[0] == averaged.samples[0]
    assert plain.samples[-1] != averaged.samples[-1]
    assert_lags_behind(averaged.files.lora, plain.files.lora)


def test_cancelling_keeps_the_averaged_weights(toy, numbers, tmp_path):
    def stop_after_four(report, steps):
        if report.step == 4:
            raise KeyboardInterrupt

    for decay in (0.0, 0.9):
        with pytest.raises(KeyboardInterrupt):
            train(
                toy,
                numbers,
                tmp_path / str(decay),
                Callbacks(stepped=stop_after_four),
                ema_decay=decay,
                **STEADY,
                **TOY,
            )
    assert_lags_behind(tmp_path / "0.9" / "lora.safetensors", tmp_path / "0.0" / "lora.safetensors")


def test_the_objective_reaches_the_losses(base_model, dataset, tmp_path):
    """In a batch that is large enough to have timesteps of all kinds."""
    values = {"batch_size": 16, "max_train_steps": 1, "loss_weighting": "none"}
    plain = train(base_model, dataset, tmp_path, **values)
    for settings in (
        {"loss_weighting": "min_snr"},
        {"loss_weighting": "debiased"},
        {"loss_type": "huber"},
        {"noise_offset": 0.1},
        {"timestep_sampling": "logit_normal"},
    ):
        assert train(base_model, dataset, tmp_path, **{**values, **settings}).losses[0] != plain.losses[0], settings


def test_a_shift_is_for_flow_models_alone(demo_model, dataset, tmp_path):
    with pytest.raises(CrucibleError, match=r"timestep_shift is 3, but demo predicts"):
        train(demo_model, dataset, tmp_path, timestep_shift=3)


def test_samples_heed_the_negative_prompt(demo_model, dataset, tmp_path):
    plain = train(demo_model, dataset, tmp_path, max_train_steps=1)
    without_blue = train(demo_model, dataset, tmp_path, max_train_steps=1, sample_negative_prompt="a blue square")
    assert (plain.samples[0] - without_blue.samples[0]).abs().max() > 0.1


def test_the_report_repeats_purpose_reasons_and_notes(base_model, dataset, tmp_path):
    report = train(base_model, dataset, tmp_path, lora_rank=64, purpose="object").report
    assert "Chosen automatically:\n  lora_alpha = 64: the same as the rank" in report
    assert "Notes:\n  lora_rank = 64: close to full fine-tuning" in report
    assert "purpose = style: " in train(base_model, dataset, tmp_path).report


def test_a_doubtful_base_model_is_named_before_anything_is_encoded(toy, numbers, tmp_path, monkeypatch, caplog):
    def encode(*_):
        assert "sdxl_turbo" in caplog.text
        raise KeyboardInterrupt

    monkeypatch.setattr(toy, "warnings", lambda: ("This is sdxl_turbo.",))
    with pytest.raises(KeyboardInterrupt):
        train(toy, numbers, tmp_path, Callbacks(preparing=encode), **TOY)
    assert "Notes:\n  This is sdxl_turbo." in train(toy, numbers, tmp_path, **TOY).report


def test_its_config_says_what_the_folder_lacks(base_model, dataset, tmp_path):
    plain = train(base_model, dataset, tmp_path, max_train_steps=1)
    assert "#" not in (plain.files.folder / "config.yaml").read_text()
    of_graph = replace(dataset, not_in_folder="Captions are elsewhere.")
    written = train(base_model, of_graph, tmp_path, max_train_steps=1).files.folder / "config.yaml"
    assert written.read_text().startswith("# Captions are elsewhere.\n")
    assert read_config(written).train_data_dir == "demo"


def test_file_and_output_have_the_base_models_form(toy, numbers, tmp_path, monkeypatch):
    """What training has and what the architecture's files hold are two things."""
    monkeypatch.setattr(toy, "portable", lambda lora: {f"other.{key}": lora[key] for key in lora})
    monkeypatch.setattr(toy, "place_of", lambda name: Place(name.removeprefix("other.")))
    monkeypatch.setattr(toy, "verify", lambda path, layers: None)
    result = train(toy, numbers, tmp_path, **TOY)
    tensors, _ = read_lora(result.files.lora)
    assert all(key.startswith("other.lora_unet_") for key in tensors)
    assert result.lora.keys() == tensors.keys()


def test_a_full_disk_is_told_before_anything_is_encoded(toy, numbers, tmp_path, monkeypatch):
    def encoded(*arguments):
        raise AssertionError("the examples were encoded")

    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    monkeypatch.setattr(toy, "cache_inputs", encoded)
    with pytest.raises(CrucibleError, match="so the result of the training could not be saved"):
        train(toy, numbers, tmp_path, **TOY)
