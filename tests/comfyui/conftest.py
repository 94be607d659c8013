"""One server for all tests that need nothing special of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from server import Server
from workflows import DemoGraph

# Only ComfyUI's own Python can import these; test_in_process.py starts it.
collect_ignore = [] if os.environ.get("IN_COMFYUI") else ["in_process"]


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
