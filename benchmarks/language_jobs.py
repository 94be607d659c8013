"""Runs the worker processes of the benchmarks of language models (`language_contestants.py`).

Uses nothing but the standard library, because a child's peak memory includes what its parent had in memory.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
THREADS = 2


def threads() -> int:
    """Return the number of threads that each worker computes with."""
    return int(os.environ.get("OMP_NUM_THREADS", THREADS))


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "peft", "bitsandbytes", "trl", "accelerate"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def run_job(job: str, **arguments: Any) -> dict[str, Any]:
    """Run a function of language_contestants.py in a new process and return its result.

    Raises:
        RuntimeError: the process failed; the message ends with its error output.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        request = {"job": job, "answer": str(answer), "threads": threads(), "arguments": arguments}
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads()),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
        }
        command = [sys.executable, str(HERE / "language_contestants.py"), json.dumps(request)]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", cwd=folder)
        if process.returncode or not answer.exists():
            raise RuntimeError(f"{job} ended with {process.returncode}:\n{process.stderr[-3000:]}")
        return json.loads(answer.read_text(encoding="utf-8"))
