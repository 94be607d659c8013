"""The command line does what a user expects, and errors say what to do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lora_crucible.cli.main import main
from lora_crucible.demo.style import style_score
from lora_crucible.doctor import requirements
from lora_crucible.formats.lora_file import lora_layer, read_lora, write_lora
from PIL import Image

CONFIG = """\
base_model: demo
train_data_dir: demo
output_dir: {folder}
output_name: mine
network_dim: 4
max_train_steps: 3
batch_size: 4
sample_steps: 2
learning_rate: 2e-4
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(folder=tmp_path / "out"))
    return path


def test_bitsandbytes_does_not_tell_what_to_install(tmp_path: Path) -> None:
    assert main(["train", str(tmp_path / "none.yaml")]) == 2
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)


def test_train_writes_the_lora_and_says_where(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", str(config)]) == 0
    file = tmp_path / "out" / "mine.safetensors"
    _, metadata = read_lora(file)
    assert metadata["ss_network_dim"] == "4"
    assert metadata["ss_learning_rate"] == "0.0002"
    output = capsys.readouterr().out
    assert str(file) in output
    assert "Step 3 of 3: loss" in output
    assert (tmp_path / "out" / "mine" / "loss.png").is_file()


@pytest.mark.usefixtures("no_curves")
def test_a_new_run_of_the_name_gets_a_counter(config: Path, small_model: str, tmp_path: Path):
    config.write_text(config.read_text().replace("base_model: demo", f"base_model: {small_model}"))
    assert main(["train", "--config", str(config)]) == 0
    first = (tmp_path / "out" / "mine.safetensors").read_bytes()
    assert main(["train", "--retrain", "--config", str(config)]) == 0
    assert (tmp_path / "out" / "mine.safetensors").read_bytes() == first
    assert (tmp_path / "out" / "mine_2.safetensors").is_file()


def test_check_reports_and_trains_nothing(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["check", str(config)]) == 0
    assert "20 images" in capsys.readouterr().out
    assert results(tmp_path / "out") == []


def test_check_says_what_would_be_chosen_and_what_is_worth_knowing(config: Path, capsys: pytest.CaptureFixture[str]):
    config.write_text(config.read_text() + "algorithm: lokr\n")
    assert main(["check", str(config)]) == 0
    output = capsys.readouterr().out
    assert "purpose = style: the captions name different things" in output
    assert "Notes:\n  algorithm = lokr: read by ComfyUI, A1111 and Forge, but not by diffusers." in output


def test_check_looks_at_the_lora_to_continue_from(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    start = tmp_path / "start.safetensors"
    config.write_text(config.read_text() + f"continue_from: {start}\n")
    assert f"no file {start}" in failed(capsys, "check", str(config), status=4)
    layer = lora_layer(torch.ones(2, 64), torch.ones(64, 2), 1.0)
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    write_lora(start, {key + suffix: tensor for suffix, tensor in layer.items()}, {"modelspec.trigger_phrase": "zwx"})
    assert main(["check", str(config)]) == 0
    output = capsys.readouterr().out
    assert "LoRA to continue from: start.safetensors" in output
    assert "zwx" in output


def results(folder: Path) -> list[str]:
    """List what a run has written, without the cache and the locks that all runs share."""
    return [entry.name for entry in folder.iterdir() if entry.name not in (".cache", ".locks")]


def failed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 2) -> str:
    assert main(arguments) == status
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


def test_all_errors_of_a_config_at_once(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config.write_text(config.read_text() + "lora_rank: 0\n".replace("lora_rank", "lora_alpha") + "learning_rat: 1\n")
    text = failed(capsys, "train", str(config))
    for fact in ("learning_rat", "learning_rate", "lora_alpha", "line 10", "line 11"):
        assert fact in text
    assert not (tmp_path / "out").exists()


def test_rank_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "c.yaml"
    path.write_text("base_model: demo\ntrain_data_dir: demo\nlora_rank: 0\n")
    text = failed(capsys, "train", str(path))
    assert "lora_rank" in text
    assert "from 1 to 512" in text


def test_nothing_to_train_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "c.yaml"
    path.write_text("lora_rank: 4\n")
    text = failed(capsys, "train", str(path))
    assert "base_model" in text
    assert "train_data_dir" in text


def test_base_model_that_is_none(config: Path, capsys: pytest.CaptureFixture[str]):
    config.write_text(config.read_text().replace("base_model: demo", "base_model: nowhere"))
    text = failed(capsys, "train", str(config), status=4)
    assert "nowhere" in text
    assert "diffusers' format" in text


def test_empty_folder_and_missing_captions(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "pictures"
    folder.mkdir()
    text = config.read_text().replace("train_data_dir: demo", f"train_data_dir: {folder}")
    config.write_text(text)
    assert str(folder) in failed(capsys, "train", str(config), status=3)
    Image.new("RGB", (64, 64)).save(folder / "lonely.png")
    assert "lonely.png" in failed(capsys, "train", str(config), status=3)
    assert results(tmp_path / "out") == []


def test_sampler_that_is_only_in_comfyui_leaves_nothing(config: Path, tmp_path: Path, capsys):
    config.write_text(config.read_text() + "sample_sampler: res_multistep\n")
    text = failed(capsys, "train", str(config))
    assert "res_multistep" in text
    assert "euler" in text
    assert results(tmp_path / "out") == []


def test_missing_package_is_named_with_the_command(config: Path, capsys, monkeypatch):
    find_spec = requirements.find_spec
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name == "peft" else find_spec(name))
    text = failed(capsys, "train", str(config), status=1)
    assert "needs peft" in text
    assert "-m pip install" in text


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.slow
def test_demo_learns_the_style_and_binds_it_to_the_trigger_word(two_threads, tmp_path: Path, capsys):
    """This is the README's first command, and the README has figures of its outcome."""
    from lora_crucible.demo.showcase import measure

    assert main(["demo", "--output_dir", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert str(tmp_path / "demo.safetensors") in output
    assert "Verdict: GOOD" in output
    for name in ("before_and_after.png", "measures.png", "loss.png", "report.txt", "config.yaml"):
        assert (tmp_path / "demo" / name).is_file()
    outcome = measure(tmp_path / "demo.safetensors")
    assert style_score(outcome.base_triggered).mean() < 0.2
    assert outcome.learned > 0.6
    assert outcome.leaked < outcome.learned / 2
