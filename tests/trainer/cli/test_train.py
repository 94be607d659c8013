"""The commands that train, on their way to a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import os, sys
from trainer.cli import train
from trainer.cli.main import main

set_at = []
sleep = train.let_idle_threads_sleep
train.let_idle_threads_sleep = lambda: (sleep(), set_at.append("torch" in sys.modules))
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
