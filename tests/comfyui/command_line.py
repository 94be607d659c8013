"""The real command line beside a ComfyUI, and what its runs leave on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from server import ONE_THREAD, ROOT


def typed(*arguments: str | Path, comfyui: Path | None = None, python: str = "") -> str:
    """Run `python -m trainer` and return what it printed.

    Args:
        arguments: what follows it.
        comfyui: the folder of the ComfyUI that it finds; None for a computer without one.
        python: ComfyUI's Python.
    """
    environment = {**os.environ, **ONE_THREAD, "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("COMFYUI_PATH", "COMFYUI_PYTHON"):
        environment.pop(name, None)
    if comfyui is not None:
        environment |= {"COMFYUI_PATH": str(comfyui), "COMFYUI_PYTHON": python}
    command = [sys.executable, "-m", "trainer", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def losses(run: Path) -> list[float]:
    """Return the loss of each step from the folder of a run."""
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]
