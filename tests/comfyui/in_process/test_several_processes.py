"""Training a ComfyUI model and a ComfyUI CLIP in two processes, as in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lora_crucible.config import parse_config
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.comfyui.model import ComfyUIBaseModel
from lora_crucible.training.resume import train_or_resume
from several import run_together

SETTINGS = {
    "output_name": "lora",
    "lora_rank": 4,
    "max_train_steps": 4,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "sample_steps": 1,
    "sample_prompts": "crux",
    "sample_every_n_steps": 2,
    "measure": "never",
    "mixed_precision": "fp32",
    "save_precision": "fp32",
}


def train(parts, dataset, folder: Path, **settings) -> None:
    with torch.inference_mode():  # as a node runs
        base_model = ComfyUIBaseModel(*parts)
        train_or_resume(base_model, dataset, parse_config(SETTINGS | settings), folder, folder)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "lora" / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("settings", [{}, {"train_text_encoder": True}], ids=["model", "with text encoder"])
def test_two_processes_train_what_one_trains(demo, dataset, tmp_path, settings):
    train(demo, dataset, tmp_path / "alone", **settings)
    run_together(2, lambda processes: train(demo, dataset, tmp_path / "run", **settings), tmp_path)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "alone"), abs=1e-5)
    made, wanted = (read_lora(tmp_path / folder / "lora.safetensors")[0] for folder in ("run", "alone"))
    assert made.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(made[key], wanted[key], atol=1e-5, rtol=0)
    assert "shared by 2 processes" in (tmp_path / "run" / "lora" / "report.txt").read_text()
    names = [{path.name for path in (tmp_path / folder / ".cache").glob("??/*")} for folder in ("run", "alone")]
    assert names[0] == names[1]
