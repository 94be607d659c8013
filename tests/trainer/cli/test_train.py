"""The commands that train, on their way to a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lora_crucible.cli import train
from lora_crucible.cli.main import main
from lora_crucible.demo.text import showcase

ROOT = Path(__file__).parents[3]
SCRIPT = """
import os, sys
from trainer.cli import train
from trainer.cli.main import main

set_at = []
sleep = train._let_idle_threads_sleep
train._let_idle_threads_sleep = lambda: (sleep(), set_at.append("torch" in sys.modules))
main(["train", "missing.yaml"])
print(set_at, os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("given", "card", "spins"),
    [
        ({}, False, "10000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, False, "None"),
        ({"GOMP_SPINCOUNT": "5"}, False, "5"),
        ({}, True, "None"),
    ],
)
def test_idle_threads_sleep_on_a_cpu_unless_the_user_says_otherwise(tmp_path, given, card, spins):
    """OpenMP reads its settings when torch is imported, so they have to be set before."""
    ours = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environ = {name: value for name, value in os.environ.items() if name not in ours} | given
    environ["PATH"] = str(tmp_path)
    if card:
        driver = tmp_path / ("nvidia-smi.exe" if os.name == "nt" else "nvidia-smi")
        driver.write_text("")
        driver.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.stdout.strip() == f"[False] {spins}", done.stderr


def test_demo_of_texts_trains_the_demo_language_model_and_shows_its_answers(monkeypatch, tmp_path, capsys):
    asked = []

    def run(config, dataset, retrain):
        asked.append((config, dataset, retrain))
        return SimpleNamespace(report="The report.", files=SimpleNamespace(folder=tmp_path / "demo_text"))

    monkeypatch.setattr(train, "_run", run)
    monkeypatch.setattr(train, "_load", lambda config: f"the dataset {config.train_data_dir}")
    monkeypatch.setattr(showcase, "measure", lambda folder: SimpleNamespace(text=lambda: f"Answers of {folder}."))
    main(["demo", "--text", "--retrain", "--output_dir", str(tmp_path)])
    [(config, dataset, retrain)] = asked
    assert (config.task_type, config.base_model, config.output_name) == ("text-generation", "demo", "demo_text")
    assert (dataset, retrain) == ("the dataset demo", True)
    assert config.regularization_rows
    said = capsys.readouterr().out
    assert said.endswith(f"The report.\nAnswers of {tmp_path / 'demo_text' / 'adapter'}.\n")
