"""Fixtures of the browser tests: a ComfyUI server and its page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from server import Server

if TYPE_CHECKING:
    from browser import ComfyPage


@pytest.fixture(scope="session")
def web_server(comfyui_path: Path, prepared_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running ComfyUI server with this pack installed."""
    server = Server(comfyui_path, prepared_python, tmp_path_factory.mktemp("web"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def object_info(web_server: Server) -> dict[str, Any]:
    """The server's description of all nodes."""
    return web_server.get("/object_info")


@pytest.fixture(scope="module", params=["canvas", "vue"])
def comfy(request: pytest.FixtureRequest) -> Iterator[ComfyPage]:
    """ComfyUI's page, in each of its two renderers. The tests of a module share it, so one sees what another left."""
    from browser import CHROMIUM, comfy_page

    if CHROMIUM is None:
        pytest.skip("browser tests need Chromium: install it or set CHROMIUM_PATH")
    with comfy_page(request.getfixturevalue("web_server"), request.param) as page:
        yield page
