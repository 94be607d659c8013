"""Runs test files of this folder, each in its own process, and prints the name and exit status of each that has ended.

    python run_files.py PROCESSES FOLDER FILE...

What the tests of x.py print goes to FOLDER/x.py.txt. The processes are forked from one that has imported ComfyUI, torch
and diffusers, because that takes longer than most of the files. Where processes cannot be forked, each imports them.
PYTHONPATH must have this folder and that of ComfyUI, because the process that is forked gets no other paths.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest


def run(file: str, output: Path) -> None:
    """Run the tests of a file in this process, with everything that they print going to `output`."""
    with open(output, "wb") as opened:
        for stream in (1, 2):
            os.dup2(opened.fileno(), stream)
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", str(Path(__file__).with_name(file))]))


def stop(*_: object) -> None:
    """End all processes at once."""
    for process in multiprocessing.active_children():
        process.terminate()
    os._exit(1)


def main(processes: int, folder: Path, files: list[str]) -> None:
    """Run the files in the given order, as many at a time as there are processes."""
    can_fork = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if can_fork else "spawn")
    context.set_forkserver_preload(["comfyui_imports"])
    signal.signal(signal.SIGTERM, stop)

    def finished(file: str) -> tuple[str, int | None]:
        process = context.Process(target=run, args=(file, folder / f"{file}.txt"))
        process.start()
        process.join()
        return file, process.exitcode

    with ThreadPoolExecutor(processes) as pool:
        for future in as_completed([pool.submit(finished, file) for file in files]):
            print(*future.result(), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
