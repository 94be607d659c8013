"""Twelve short runs on each kind of base model give the LoRAs that they gave before, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from recorded_runs import INSTRUCTIONS, RUNS, recorded

SCRIPT = Path(__file__).with_name("recorded_runs.py")


def assert_as_recorded(base_model: str, python: str, **environ: str) -> None:
    process = subprocess.run(
        [python, str(SCRIPT), base_model],
        env={**os.environ, **INSTRUCTIONS, **environ},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    found, known = json.loads(process.stdout.splitlines()[-1]), recorded(base_model)
    if found["versions"] != known["versions"]:
        pytest.skip(
            f"the runs were recorded with {known['versions']}, and here are {found['versions']}, which may compute "
            f"other last digits: record them on a commit that is known to be good, with {SCRIPT.name} --record"
        )
    assert known["loras"].keys() == RUNS.keys()
    assert found["loras"] == known["loras"]


@pytest.mark.slow
def test_on_diffusers():
    assert_as_recorded("diffusers", sys.executable)


@pytest.mark.comfyui
def test_in_comfyui(comfyui_path, prepared_python):
    assert_as_recorded("comfyui", prepared_python, COMFYUI_PATH=str(comfyui_path))
