"""A ComfyUI server shared by all tests that need no special setup."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from in_process_runs import Result, running
from server import Server
from workflows import DemoGraph

IN_PROCESS = "test_in_process.py"

# These can only be imported by ComfyUI's own Python, which in_process_runs.py starts.
collect_ignore = [] if os.environ.get("IN_COMFYUI") else ["in_process"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that wait for other processes at the end, so that those run beside all other tests."""
    items.sort(key=lambda item: item.path.name == IN_PROCESS)


@pytest.fixture(scope="session")
def in_process_results(
    request: pytest.FixtureRequest, comfyui_path: Path, prepared_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Result]]]:
    """The results of the tests in in_process/ by file, each as soon as it is there."""
    tests = request.session.items
    files = [test.callspec.params["file"] for test in tests if test.path.name == IN_PROCESS]
    # One core is for each process of pytest, unless that does nothing but wait.
    others = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", len(files) < len(tests)))
    count = max(1, (os.cpu_count() or 1) - others)
    with running(files, count, comfyui_path, prepared_python, tmp_path_factory.mktemp("in_process")) as results:
        yield results


@pytest.fixture(scope="session", autouse=True)
def _beside_all_tests(request: pytest.FixtureRequest) -> None:
    """Start the tests in in_process/ before the first test; with pytest-xdist, only in the process that needs them."""
    if "PYTEST_XDIST_WORKER" not in os.environ and request.session.items[-1].path.name == IN_PROCESS:
        request.getfixturevalue("in_process_results")


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
