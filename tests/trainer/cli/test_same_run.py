"""The config file of a run, and the settings in its LoRA, give the same run again."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from lora_crucible.cli.main import main
from lora_crucible.formats.header import read_header

SETTINGS = """
base_model: demo
train_data_dir: demo
output_dir: results
output_name: otter
max_train_steps: 2
batch_size: 2
lora_rank: 2
lora_alpha: 1.5
warmup_steps: 50%
sample_steps: 1
sample_prompts: [a red circle]
measure: never
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a config file whose run is finished."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "my.yaml").write_text(SETTINGS)
    assert main(["train", str(folder / "my.yaml")]) == 0
    return folder


@pytest.mark.slow
def test_the_config_in_the_folder_of_a_run_is_that_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(run / "results" / "otter" / "config.yaml")]) == 0
    assert "Nothing was trained: otter is already finished" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_moved_folder_is_still_that_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = tmp_path / "volume"
    (run / "results").rename(moved)
    try:
        assert main(["train", str(moved / "otter" / "config.yaml")]) == 0
        assert "otter is already finished" in capsys.readouterr().out
    finally:
        moved.rename(run / "results")


@pytest.mark.slow
def test_the_settings_in_a_lora_train_the_same_lora(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lora = run / "results" / "otter.safetensors"
    assert main(["convert-config", str(lora), "--output", str(tmp_path / "again.yaml")]) == 0
    written = yaml.safe_load((tmp_path / "again.yaml").read_text())
    assert (written["output_name"], written["lora_alpha"], written["lr_warmup_steps"]) == ("otter", 1.5, 1)
    monkeypatch.chdir(run)
    assert main(["train", str(tmp_path / "again.yaml")]) == 0
    again = tmp_path / "output" / "otter.safetensors"
    first, second = safetensors.torch.load_file(lora), safetensors.torch.load_file(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert read_header(again).metadata["crucible.config"] == read_header(lora).metadata["crucible.config"]


def test_a_lora_of_another_trainer_has_no_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file({"lora_unet_x.alpha": torch.ones(())}, path, {"ss_network_dim": "8"})
    assert main(["convert-config", str(path)]) == 2
    error = capsys.readouterr().err
    assert "has metadata of kohya's trainer" in error
    assert "Convert the config file that it was trained with" in error
    assert not list(tmp_path.glob("*.yaml"))
