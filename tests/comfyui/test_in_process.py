"""Runs the tests that import ComfyUI, each file in its own process of ComfyUI's Python."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "in_process"
Process = subprocess.CompletedProcess


@pytest.fixture(scope="session")
def processes(
    request: pytest.FixtureRequest, comfyui_path: Path, prepared_python: str
) -> Iterator[dict[str, Future[Process]]]:
    """The test process of each selected file. Each runs on one thread, as many at a time as there are cores."""
    environment = {"COMFYUI_PATH": str(comfyui_path), "PYTHONDONTWRITEBYTECODE": "1", "IN_COMFYUI": "1"}
    files = [item.callspec.params["file"] for item in request.session.items if item.originalname == "test_in_process"]

    def run(file: str) -> Process:
        command = [prepared_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER / file)]
        environ = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        return subprocess.run(command, env=environ, capture_output=True, text=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {file: pool.submit(run, file) for file in files}
        pool.shutdown(cancel_futures=True)


@pytest.mark.comfyui
@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("test_*.py")))
def test_in_process(file: str, processes: dict[str, Future[Process]]) -> None:
    process = processes[file].result()
    assert process.returncode == 0, f"{process.stdout[-8000:]}\n{process.stderr[-4000:]}"
