"""A language model is trained and checked from the command line, on whatever reads its rows and its weights."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lora_crucible.cli.main import main
from lora_crucible.config import ModelFacts, TrainingConfig
from lora_crucible.formats.architectures import ARCHITECTURES
from toy import Numbers, Toy

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


class Rows(Numbers):
    """A dataset whose rows are numbers."""

    name, unit, source = "rows", "row", "rows"

    def settle(self, config: TrainingConfig) -> TrainingConfig:
        return config.model_copy(update={"train_data_dir": "rows"})


class ToyLanguageModel(Toy):
    """The toy in the place of a language model, which remembers how it was made."""

    name, architecture, facts = "toy", ARCHITECTURES["language"], ModelFacts("language", parameters=1)
    made: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, base_model: str, check_interrupt: Any, **options: Any) -> None:
        super().__init__()
        for layer in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
            self.layers.add_module(layer, torch.nn.Linear(1, 1, bias=False).requires_grad_(False))
        self.made.append({"base_model": base_model, **options})


@pytest.fixture
def language(monkeypatch: pytest.MonkeyPatch) -> list[TrainingConfig]:
    """The configs that rows were loaded with, from a toy in the place of rows and language models."""
    loaded: list[TrainingConfig] = []
    parts: dict[str, dict[str, Any]] = {
        "data.text.load": {"load_text_dataset": lambda config: loaded.append(config) or Rows()},
        "data.text.chat_rendering": {"ChatRenderer": lambda *options: options},
        "data.text.report": {"text_report": lambda dataset: SimpleNamespace(text=lambda: f"Report on {dataset.name}")},
        "data.text.cleaning": {"write_cleaned": lambda source, columns, file: f"Cleaned: {source.name}, {file}"},
        "data.text.columns": {"read_columns": lambda text: {}},
        "models.transformers.model": {"TransformersBaseModel": ToyLanguageModel},
    }
    for name, content in parts.items():
        module = ModuleType(f"lora_crucible.{name}")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(ToyLanguageModel, "made", [])
    return loaded


def written(folder: Path, guide: str, **more: Any) -> Path:
    path = folder / "config.yaml"
    more = {"output_dir": str(folder / "out"), "max_train_steps": 2, "measure": "never"} | more
    path.write_text(guide.format(model=folder / "model", data=folder / "data") + yaml.safe_dump(more))
    return path


@pytest.mark.parametrize("guide", [QA_LLAMA, QLORA_QWEN, MEDICAL], ids=["qa_llama", "qlora_qwen", "medical"])
def test_settings_of_guides_are_understood(
    guide: str, tmp_path: Path, language: list[TrainingConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(written(tmp_path, guide))]) == 0, capsys.readouterr().err
    (config,) = language
    assert config.task_type == "text-generation"
    if guide == QLORA_QWEN:
        assert (config.load_in_4bit, config.batch_size, config.max_seq_length) == (True, 2, 1024)
        assert config.layer_patterns.startswith("q_proj\nk_proj")
        assert ToyLanguageModel.made[0]["load_in_4bit"] is True
    output = capsys.readouterr().out
    assert "Report on rows" in output
    assert "image" not in output


def test_training_speaks_of_rows(
    tmp_path: Path, language: list[TrainingConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(written(tmp_path, MEDICAL))]) == 0
    (model,) = ToyLanguageModel.made
    assert (model["weights"], model["download"], model["max_seq_length"]) == (True, False, None)
    assert "4 rows" in capsys.readouterr().out
    config = yaml.safe_load((tmp_path / "out" / "lora" / "config.yaml").read_text())
    assert config["task_type"] == "text-generation"
    assert not {"resolution", "sample_cfg", "caption_dropout_rate", "noise_offset"} & set(config)


def test_flags_of_guides_override_the_file(tmp_path: Path, language: list[TrainingConfig]) -> None:
    path = written(tmp_path, MEDICAL, mixed_precision="fp32")
    assert main(["check", "--bf16", "--download", "--config", str(path)]) == 0
    assert language[0].mixed_precision == "bf16"
    assert ToyLanguageModel.made[0]["download"] is True
    with pytest.raises(SystemExit):
        main(["check", "--bf16", "--fp16", str(path)])


def test_rows_are_cleaned_into_a_file_of_their_own(
    tmp_path: Path, language: list[TrainingConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "clean.jsonl"
    assert main(["check", str(written(tmp_path, MEDICAL)), "--clean", str(file)]) == 0
    assert f"Cleaned: data, {file}" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--clean", "rows.jsonl"], ["--download"]])
def test_images_have_nothing_to_clean_and_nothing_to_download(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"base_model: demo\ntrain_data_dir: demo\noutput_dir: {tmp_path}\n")
    assert main(["check", str(path), *option]) == 1
    error = capsys.readouterr().err
    assert option[0] in error
    assert "images" in error


def test_settings_of_images_are_refused_with_the_task_that_was_taken(
    tmp_path: Path, language: list[TrainingConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "hello"}\n')
    path = tmp_path / "config.yaml"
    path.write_text(f"base_model: some/model\ntrain_data_dir: {rows}\nresolution: 512\n")
    assert main(["check", str(path)]) == 1
    said = capsys.readouterr()
    assert "It is taken as text-generation" in said.out
    assert "line 3: resolution = 512 only has a meaning for images" in said.err
    assert not language
