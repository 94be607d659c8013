"""A language model is trained and checked from the command line, on whatever reads its rows and its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from lora_crucible.cli.main import main
from random_models import save_in_shards
from safetensors import safe_open

QA_LLAMA = """\
base_model: "{model}"
task_type: "text-generation"
train_data_dir: "{data}"
max_seq_length: 512
"""
QLORA_QWEN = """\
base_model: "{model}"
task_type: "text-generation"
train_data_dir: "{data}"
load_in_4bit: true
lora_rank: 16
lora_alpha: 32
lora_dropout: 0.05
target_modules: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
gradient_checkpointing: true
max_seq_length: 1024
learning_rate: 2e-4
max_grad_norm: 1.0
weight_decay: 0.01
"""
MEDICAL = """\
base_model: "{model}"
task_type: "text-generation"
train_data_dir: "{data}"
"""


WORDS = ("red", "blue", "a", "sun", "moon", "star")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder with a tiny language model and twelve rows."""
    save_in_shards(tmp_path / "model")
    (tmp_path / "data").mkdir()
    rows = [{"instruction": f"{one} heart", "output": f"a {one} {other}"} for one in WORDS for other in WORDS[:2]]
    (tmp_path / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def written(folder: Path, guide: str, **more: Any) -> Path:
    path = folder / "config.yaml"
    more = {"output_dir": str(folder / "out"), "max_train_steps": 2, "measure": "never"} | more
    path.write_text(guide.format(model=folder / "model", data=folder / "data") + yaml.safe_dump(more))
    return path


def test_settings_of_a_guide_for_questions_are_checked(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengths = {"max_seq_length": 64}
    guide = QA_LLAMA.replace("max_seq_length: 512\n", "")
    assert main(["check", str(written(texts, guide, **lengths))]) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    assert "12 rows" in output
    assert "\u27e6a red red </s>\u27e7" in output
    assert "image" not in output


def test_a_guide_for_4_bits_trains_seven_kinds_of_layers(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("bitsandbytes")
    path = written(texts, QLORA_QWEN.replace("max_seq_length: 1024", "max_seq_length: 64"))
    assert main(["train", str(path)]) == 0, capsys.readouterr().err
    assert "parameters in 14 layers" in capsys.readouterr().out
    run = yaml.safe_load((texts / "out" / "lora" / "config.yaml").read_text())
    assert (run["load_in_4bit"], run["batch_size"], run["max_seq_length"]) == (True, 2, 64)


def test_training_speaks_of_rows_and_writes_two_forms(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(written(texts, MEDICAL))]) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    assert "12 rows" in output
    assert f"For transformers, PEFT and vLLM: {texts / 'out' / 'lora' / 'adapter'}" in output
    for word in ("image", "drawn", "Cache:"):
        assert word not in output
    run = yaml.safe_load((texts / "out" / "lora" / "config.yaml").read_text())
    assert run["task_type"] == "text-generation"
    assert not {"resolution", "sample_cfg", "caption_dropout_rate", "noise_offset"} & set(run)
    with safe_open(texts / "out" / "lora.safetensors", "pt") as file:
        assert all(key.startswith("text_encoders.transformer.model.layers.") for key in file.keys())  # noqa: SIM118
    assert (texts / "out" / "lora" / "adapter" / "adapter_config.json").is_file()


def test_long_sample_answers_are_shortened_on_the_terminal(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(texts, MEDICAL, max_new_tokens=60)  # the model with random weights never stops
    assert main(["train", str(path)]) == 0, capsys.readouterr().err
    samples = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Sample after")]
    assert len(samples) >= 2
    assert max(map(len, samples)) < 240
    whole = (texts / "out" / "lora" / "samples" / "step_000002_01.txt").read_text()
    assert len(whole) > 240


def test_flags_of_guides_override_the_file(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(texts, MEDICAL, mixed_precision="fp32")
    assert main(["check", "--bf16", "--config", str(path)]) == 0, capsys.readouterr().err
    assert "mixed_precision = bf16" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["check", "--bf16", "--fp16", str(path)])


def test_rows_are_cleaned_into_a_file_of_their_own(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = texts / "data" / "rows.jsonl"
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[0] + "\n")
    file = texts / "clean.jsonl"
    assert main(["check", str(written(texts, MEDICAL)), "--clean", str(file)]) == 0, capsys.readouterr().err
    assert "1 row that repeats another was left out (rows.jsonl, line 13)" in capsys.readouterr().out
    assert len(file.read_text().splitlines()) == 12


def test_the_demo_has_nothing_to_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "task_type: text-generation\nbase_model: demo\ntrain_data_dir: demo\n")
    assert main(["check", str(path), "--clean", str(tmp_path / "clean.jsonl")]) == 2
    assert "come with the package" in capsys.readouterr().err


def test_images_have_nothing_to_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"base_model: demo\ntrain_data_dir: demo\noutput_dir: {tmp_path}\n")
    assert main(["check", str(path), "--clean", "rows.jsonl"]) in (2, 4)
    error = capsys.readouterr().err
    assert "--clean" in error
    assert "images" in error


def test_settings_of_images_are_refused_with_the_task_that_was_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "hello"}\n')
    path = tmp_path / "config.yaml"
    path.write_text(f"base_model: some/model\ntrain_data_dir: {rows}\nresolution: 512\n")
    assert main(["check", str(path)]) == 2
    said = capsys.readouterr()
    assert "It is taken as text-generation" in said.err
    assert "line 3: resolution = 512 only has a meaning for images" in said.err
