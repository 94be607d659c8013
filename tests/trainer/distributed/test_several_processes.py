"""Runs of several processes against the same run of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lora_crucible.config import parse_config
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.training.resume import train_or_resume
from several import run_together
from toys import TOYS

SETTINGS = {
    "max_train_steps": 20,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "target_modules": "linear",
    "lora_dropout": 0.2,
    "learning_rate": 0.05,
    "sample_prompts": "one\ntwo",
    "sample_every_n_steps": 10,
    "validate_every_n_steps": 5,
    "save_steps": 5,
    "save_precision": "fp32",
    "output_name": "toy",
}
pytestmark = pytest.mark.usefixtures("no_curves")


def train(folder: Path, kind: str = "numbers", **values):
    base_model, dataset = TOYS[kind]
    return train_or_resume(base_model(), dataset(), parse_config(SETTINGS | values), folder, folder)


def assert_same_lora(one: Path, other: Path, atol: float = 1e-5) -> None:
    made, expected = read_lora(one)[0], read_lora(other)[0]
    assert made.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(made[key], expected[key], atol=atol, rtol=0)


@pytest.mark.parametrize("count", [2, 4])
def test_as_one(tmp_path, count):
    alone = train(tmp_path / "alone")

    def work(processes) -> None:
        result = train(tmp_path / "together")
        assert result.losses == pytest.approx(alone.losses, abs=1e-5)

    run_together(count, work, tmp_path / "outputs")
    assert_same_lora(tmp_path / "together" / "toy.safetensors", alone.files.lora)
    report = (tmp_path / "together" / "toy" / "report.txt").read_text()
    assert f"Effective batch 4 (batch_size 2 x gradient_accumulation_steps 2): shared by {count} processes" in report
