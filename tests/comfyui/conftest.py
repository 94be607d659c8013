"""A ComfyUI server shared by all tests that need no special setup."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from server import Server
from workflows import DemoGraph

# These can only be imported by ComfyUI's own Python, which test_in_process.py starts.
collect_ignore = [] if os.environ.get("IN_COMFYUI") else ["in_process"]


@pytest.fixture(scope="session")
def server(comfyui_path: Path, prepared_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(comfyui_path, prepared_python, tmp_path_factory.mktemp("comfyui"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def new_graph(server: Server) -> Callable[[], DemoGraph]:
    """A function that starts a new prompt for `server`."""
    object_info = server.get("/object_info")
    return lambda: DemoGraph(object_info)
