"""The tests that import ComfyUI, run with ComfyUI's own Python, each file in its own process."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from in_process_runs import FILES, Result


@pytest.mark.comfyui
@pytest.mark.parametrize("file", FILES)
def test_in_process(file: str, in_process_results: dict[str, Future[Result]]) -> None:
    status, output = in_process_results[file].result()
    assert status == 0, output[-12000:]
