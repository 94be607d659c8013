"""Runs the captioners' tests with ComfyUI's own Python, which has torchvision, as some of the models need."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from server import ONE_THREAD

FOLDER = Path(__file__).parent.parent / "trainer" / "captioners"


@pytest.mark.comfyui
def test_captioners_with_all_their_packages(prepared_python: str) -> None:
    process = subprocess.run(
        [prepared_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER)],
        env={**os.environ, **ONE_THREAD, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, f"{process.stdout[-8000:]}\n{process.stderr[-4000:]}"
    assert "skipped" not in process.stdout.splitlines()[-1]
