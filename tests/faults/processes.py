"""Starting the real command line in order to kill it, and checking its files afterwards."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lora_crucible.formats.lora_file import read_lora
from lora_crucible.runs.checkpoint import Checkpoints

ROOT = Path(__file__).resolve().parents[2]

SECONDS = 120
"""The longest time to wait for something on a busy machine."""


def start_training(config: Path, output: Path) -> subprocess.Popen[bytes]:
    """Start a training; its output is appended to the file `output`."""
    return start_command(["train", str(config)], output)


def start_command(arguments: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
    """Start the real command line; its output is appended to the file `output`."""
    with open(output, "ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "trainer", *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Wait for a condition and return whether it became true before the process ended."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if reached():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    raise TimeoutError(f"nothing happened within {SECONDS} s")


def assert_whole(folder: Path) -> int:
    """Assert that every visible LoRA in an output folder and the latest checkpoint of each run are intact.

    Returns:
        The number of files and checkpoints that were checked.
    """
    files = [path for path in folder.rglob("*.safetensors") if ".cache" not in path.parts]
    count = 0
    for path in files:
        if path.name == "state.safetensors" or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        _, metadata = read_lora(path)
        content = path.read_bytes()
        data = content[8 + int.from_bytes(content[:8], "little") :]
        assert metadata["sshs_model_hash"] == hashlib.sha256(data).hexdigest(), path
        count += 1
    for checkpoints in folder.glob("*/checkpoints"):
        steps = sorted(int(path.name.removeprefix("step_")) for path in checkpoints.glob("step_*"))
        if steps:
            latest = Checkpoints(checkpoints, 1).latest()
            assert latest is not None
            assert latest[0] == steps[-1]
            count += 1
    return count
