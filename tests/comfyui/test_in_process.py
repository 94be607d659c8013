"""Runs the tests that import ComfyUI, each file in a process of ComfyUI's own Python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "in_process"


@pytest.mark.comfyui
@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("test_*.py")))
def test_in_process(file: str, comfyui_path: Path, prepared_python: str) -> None:
    process = subprocess.run(
        [prepared_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER / file)],
        env={**os.environ, "COMFYUI_PATH": str(comfyui_path), "PYTHONDONTWRITEBYTECODE": "1", "IN_COMFYUI": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, f"{process.stdout[-8000:]}\n{process.stderr[-4000:]}"
