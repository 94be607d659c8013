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
sleep = train._let_idle_threads_sleep
train._let_idle_threads_sleep = lambda: (sleep(), set_at.append("torch" in sys.modules))
main(["train", "missing.yaml"])
print(set_at, os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("given", "card", "policy"), [(None, False, "PASSIVE"), ("ACTIVE", False, "ACTIVE"), (None, True, "None")]
)
def test_idle_threads_sleep_on_a_cpu_unless_the_user_says_otherwise(tmp_path, given, card, policy):
    """OpenMP reads its policy when torch is imported, so it has to be set before."""
    environ = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environ["PATH"] = str(tmp_path)
    if given:
        environ["OMP_WAIT_POLICY"] = given
    if card:
        driver = tmp_path / ("nvidia-smi.exe" if os.name == "nt" else "nvidia-smi")
        driver.write_text("")
        driver.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.stdout.strip() == f"[False] {policy}", done.stderr
