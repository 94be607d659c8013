"""The command line in several processes: base models of every kind against one process, and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from lora_crucible.cli.main import main
from lora_crucible.formats.lora_file import read_lora
from processes import ROOT, assert_whole
from several import STOPPED, Launch, run_together

CPU = ROOT / "examples" / "accelerate" / "cpu_2_processes.yaml"

SETTINGS = {
    "train_data_dir": "demo",
    "output_name": "mine",
    "lora_rank": 4,
    "batch_size": 4,
    "save_steps": 1,
    "sample_every_n_steps": 1000,
    "measure": "never",
    "save_precision": "fp32",
}
IMAGES = {"sample_steps": 1}
TEXTS = {
    "task_type": "text-generation",
    "base_model": "demo",
    "regularization_rows": True,
    "max_new_tokens": 4,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
}


def write_config(folder: Path, **values) -> Path:
    path = folder.with_suffix(".yaml")
    path.write_text(json.dumps(SETTINGS | {"output_dir": str(folder)} | values))
    return path


def losses(folder: Path) -> list[float]:
    log = folder / "mine" / "log.jsonl"
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()] if log.exists() else []


def assert_same_run(folder: Path, expected: Path) -> None:
    assert losses(folder) == pytest.approx(losses(expected), abs=1e-5)
    made, wanted = (read_lora(one / "mine.safetensors")[0] for one in (folder, expected))
    assert made.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(made[key], wanted[key], atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    "values",
    [IMAGES, IMAGES | {"train_text_encoder": True, "validation_percent": 20}, TEXTS],
    ids=["images", "with text encoder", "texts"],
)
def test_as_one(small_model, tmp_path, values, count):
    values = {"base_model": small_model, "max_train_steps": 6} | values
    assert main(["train", str(write_config(tmp_path / "alone", **values))]) == 0
    config = write_config(tmp_path / "run", **values)
    run_together(count, lambda _: main(["train", str(config)]), tmp_path, joins=False)
    assert_same_run(tmp_path / "run", tmp_path / "alone")
    cached = {path.name for path in (tmp_path / "run" / ".cache").glob("??/*")}
    assert cached == {path.name for path in (tmp_path / "alone" / ".cache").glob("??/*")}


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_process_stops_all(small_model, tmp_path, rank, number):
    config = write_config(tmp_path / "run", base_model=small_model, max_train_steps=200)
    launch = Launch(2, lambda _: main(["train", str(config)]), tmp_path, joins=False)
    wait_for(lambda: len(losses(tmp_path / "run")) >= 3)
    launch.send(rank, number)
    for ended in launch.ended():
        assert ended.status in (STOPPED, 128 + number), ended.output
    done = len(losses(tmp_path / "run"))
    assert done < 200
    assert (tmp_path / "run" / "mine" / "checkpoints" / f"step_{done:06}").is_dir()
    assert assert_whole(tmp_path / "run")


def wait_for(reached) -> None:
    end = time.monotonic() + 400
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def launched(config: Path, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the example of two processes on the CPU as a user would; whatever of it is left in the end is killed."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file", str(CPU)]
    with open(output, "ab") as file:
        launcher = subprocess.Popen(
            [*command, "--main_process_port", "0", "-m", "trainer", "train", str(config)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield launcher
    finally:
        if launcher.poll() is None:
            for process in [*psutil.Process(launcher.pid).children(recursive=True), launcher]:
                process.kill()


def worker(launcher: subprocess.Popen[bytes], rank: int) -> psutil.Process:
    children = psutil.Process(launcher.pid).children(recursive=True)
    return next(child for child in children if child.environ().get("RANK") == str(rank))


@pytest.mark.slow
def test_launched_stopped_killed_and_resumed(small_model, tmp_path):
    """By accelerate's launcher, which ends all processes as soon as one has ended: SIGTERM to it, one process killed,
    to the end; and the LoRA is that of a single process."""
    steps, output = 60, tmp_path / "output.txt"
    config = write_config(tmp_path / "run", base_model=small_model, max_train_steps=steps)

    with launched(config, output) as launcher:
        wait_for(lambda: len(losses(tmp_path / "run")) >= 3)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait() != 0
    done = len(losses(tmp_path / "run"))
    assert "Stopping after this batch and saving" in output.read_text()
    assert (tmp_path / "run" / "mine" / "checkpoints" / f"step_{done:06}").is_dir()

    with launched(config, output) as launcher:
        wait_for(lambda: len(losses(tmp_path / "run")) >= done + 3)
        other = worker(launcher, 0)
        worker(launcher, 1).kill()
        begun = time.monotonic()
        other.wait()
        assert time.monotonic() - begun < 30
        assert launcher.wait() != 0
    assert "error: Process 1 of 2 (on " in output.read_text()
    assert assert_whole(tmp_path / "run")

    assert main(["train", str(config)]) == 0
    alone = write_config(tmp_path / "alone", base_model=small_model, max_train_steps=steps)
    assert main(["train", str(alone)]) == 0
    assert_same_run(tmp_path / "run", tmp_path / "alone")
