"""One server for all tests that need nothing special of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from server import ROOT, Server
from workflows import DemoGraph


@pytest.fixture(scope="session")
def prepared_python(comfyui_python: str) -> str:
    """ComfyUI's Python with this pack's requirements, as a user installs them, and pytest."""
    missing = subprocess.run(
        [comfyui_python, "-c", "import accelerate, diffusers, peft, pytest"], capture_output=True
    ).returncode
    if missing:
        install = [comfyui_python, "-m", "pip", "install", "-q", "-r", str(ROOT / "requirements.txt"), "pytest"]
        subprocess.run(install, check=True)
    return comfyui_python


@pytest.fixture(scope="session")
def server(comfyui_path: Path, prepared_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(comfyui_path, prepared_python, tmp_path_factory.mktemp("comfyui"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def new_graph(server: Server) -> Callable[[], DemoGraph]:
    """Starts a prompt for `server`."""
    object_info = server.get("/object_info")
    return lambda: DemoGraph(object_info)
