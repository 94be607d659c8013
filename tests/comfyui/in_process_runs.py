"""Runs the tests in in_process/ with ComfyUI's own Python, beside the tests of this process."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from server import ONE_THREAD

FOLDER = Path(__file__).parent / "in_process"
FILES = sorted(path.name for path in FOLDER.glob("test_*.py"))
LONGEST = [
    "test_forms.py",
    "test_continuing.py",
    "test_language_training.py",
    "test_architectures.py",
    "test_algorithms.py",
]
"""The files that run first, so that no process is left with one of them at the end."""

Result = tuple[int | None, str]
"""The exit status of a file's process, None if it never ended, and what it printed."""


@contextmanager
def running(
    files: list[str], count: int, comfyui: Path, python: str, folder: Path
) -> Iterator[dict[str, Future[Result]]]:
    """Run the tests of these files, each in its own process and on one thread.

    Args:
        count: the number of processes to run at a time.
        comfyui: the folder of ComfyUI.
        python: the Python to run the tests with.
        folder: an empty folder for their output.
    """
    files = sorted(files, key=lambda file: LONGEST.index(file) if file in LONGEST else len(LONGEST))
    environment = {
        "COMFYUI_PATH": str(comfyui),
        "IN_COMFYUI": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(FOLDER), str(comfyui)]),
    }
    with open(folder / "errors.txt", "wb") as errors:
        process = subprocess.Popen(
            [python, str(FOLDER / "run_files.py"), str(count), str(folder), *files],
            env={**os.environ, **ONE_THREAD, **environment},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    results: dict[str, Future[Result]] = {file: Future() for file in files}
    reader = threading.Thread(target=_read, args=(process.stdout, folder, results))
    reader.start()
    try:
        yield results
    finally:
        process.terminate()
        process.wait()
        reader.join()


def _read(lines: Iterator[str], folder: Path, results: dict[str, Future[Result]]) -> None:
    """Set the results of the files whose names are printed, and at the end those of the others."""
    for line in lines:
        file, status = line.split()
        results[file].set_result((int(status), _text(folder / f"{file}.txt")))
    for result in results.values():
        if not result.done():
            result.set_result((None, _text(folder / "errors.txt")))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
