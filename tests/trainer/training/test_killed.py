"""Processes that are killed at any moment lose nothing, and the next one goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from disks import cut, flip_a_bit
from lora_crucible.cli.main import main
from lora_crucible.config import DataSettings, parse_config
from lora_crucible.data.images.load import load_dataset
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.training.resume import train_or_resume
from processes import assert_whole, start_training, wait_until

KILLS = 10
MOST_STEPS = 4
"""That a process does before it is killed."""

CONFIG = """\
base_model: {model}
train_data_dir: demo
output_dir: {folder}
output_name: mine
lora_rank: 4
max_train_steps: {steps}
batch_size: 4
save_steps: 1
sample_steps: 1
sample_every_n_steps: 1000
measure: never
save_precision: fp32
"""

TEXTS = """\
task_type: text-generation
base_model: {model}
train_data_dir: demo
regularization_rows: true
output_dir: {folder}
output_name: mine
lora_rank: 4
max_train_steps: {steps}
batch_size: 2
save_steps: 1
sample_every_n_steps: 1000
max_new_tokens: 4
measure: never
save_precision: fp32
"""


def write_config(model: str, folder: Path, steps: int, text: str = CONFIG, **values) -> Path:
    path = folder.with_suffix(".yaml")
    path.write_text(
        text.format(model=model, folder=folder, steps=steps) + "".join(f"{key}: {values[key]}\n" for key in values)
    )
    return path


def log_lines(folder: Path) -> int:
    log = folder / "mine" / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def assert_same_run(folder: Path, whole: Path, steps: int) -> None:
    """The LoRA of two output folders, bit for bit, and a line for each step."""
    assert [path.name for path in folder.glob("*.safetensors")] == ["mine.safetensors"]
    made, expected = read_lora(folder / "mine.safetensors")[0], read_lora(whole / "mine.safetensors")[0]
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[key], expected[key]) for key in expected)
    logged = [json.loads(line) for line in (folder / "mine" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == list(range(1, steps + 1))
    losses = [json.loads(line)["loss"] for line in (whole / "mine" / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in logged] == losses


@pytest.mark.slow
def test_killed_ten_times_and_started_again_each_time(small_model, tmp_path):
    assert_killed_and_whole(tmp_path, small_model, CONFIG, KILLS)


@pytest.mark.slow
def test_a_language_model_killed_three_times_and_started_again(tmp_path):
    assert_killed_and_whole(tmp_path, "demo", TEXTS, 3)


@pytest.mark.slow
def test_a_language_model_in_4_bits_killed_twice_and_started_again(tmp_path):
    pytest.importorskip("bitsandbytes")
    assert_killed_and_whole(tmp_path, "demo", TEXTS + "load_in_4bit: true\n", 2)


def assert_killed_and_whole(tmp_path: Path, model: str, text: str, kills: int) -> None:
    """The moments are random; as every step writes a checkpoint, most of them fall into writing one."""
    steps, moments = kills * (MOST_STEPS + 2), random.Random(5)
    folder, output = tmp_path / "killed", tmp_path / "output.txt"
    config = write_config(model, folder, steps, text)
    for _ in range(kills):
        process = start_training(config, output)
        before, more = log_lines(folder), moments.randint(1, MOST_STEPS)
        assert wait_until(lambda: log_lines(folder) >= before + more, process), output.read_text()  # noqa: B023
        time.sleep(moments.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert assert_whole(folder)
        assert not list(folder.glob("*.safetensors")), "a LoRA appeared before the end"
    assert start_training(config, output).wait() == 0, output.read_text()
    assert output.read_text().count("Resumed after step") >= kills
    assert main(["train", str(write_config(model, tmp_path / "whole", steps, text))]) == 0
    assert_same_run(folder, tmp_path / "whole", steps)
    assert not list(folder.rglob(".crucible-*"))


STEPS = 4


def train(base_model, folder: Path) -> None:
    dataset = load_dataset(DataSettings(train_data_dir="demo"))
    values = {"sample_steps": 1, "measure": "never", "save_precision": "fp32", "batch_size": 4, "save_steps": 2}
    config = parse_config({"output_name": "mine", "max_train_steps": STEPS, "lora_rank": 4, **values})
    train_or_resume(base_model, dataset, config, folder, folder)


def killed_at(call: int, base_model, folder: Path) -> bool:
    """Train in a process of its own that is killed before it renames anything for the `call`th time. Whether it was."""
    child = os.fork()
    if not child:
        calls = 0

        def counted(rename):
            def renamed(*arguments):
                nonlocal calls
                calls += 1
                if calls == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return rename(*arguments)

            return renamed

        os.replace, Path.rename = counted(os.replace), counted(Path.rename)
        try:
            train(base_model, folder)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_killed_before_each_file_that_appears(base_model, tmp_path):
    """Files appear by being renamed, so that no order of them may be left out."""
    whole = tmp_path / "whole"
    train(base_model, whole)
    call, was_killed = 0, True
    while was_killed:
        call += 1
        folder = tmp_path / str(call)
        shutil.copytree(whole / ".cache", folder / ".cache")
        was_killed = killed_at(call, base_model, folder)
        assert_whole(folder)
        train(base_model, folder)
        assert_whole(folder)
        assert_same_run(folder, whole, STEPS)
        assert not list(folder.rglob(".crucible-*")), call
    assert call > 12  # record, config, samples, two checkpoints of several files, LoRA, report, plot


def stop_by_ctrl_c(config: Path, folder: Path, checkpoints: int) -> None:
    """Train on the command line, in a process of its own, until there are so many checkpoints."""
    output = folder.with_suffix(".txt")
    process = start_training(config, output)
    written = folder / "mine" / "checkpoints"
    assert wait_until(lambda: len(list(written.glob("step_*"))) >= checkpoints, process), output.read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130


@pytest.fixture(scope="module")
def stopped(small_model, tmp_path_factory) -> Path:
    """A run that was stopped after some steps, with its last checkpoints; and one that was not, beside it."""
    folder = tmp_path_factory.mktemp("damage") / "stopped"
    stop_by_ctrl_c(write_config(small_model, folder, DAMAGED_STEPS, checkpoints_kept=3), folder, 3)
    assert main(["train", str(write_config(small_model, folder.with_name("whole"), DAMAGED_STEPS))]) == 0
    return folder


DAMAGED_STEPS = 40


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip_a_bit, cut])
@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("spoiled", [1, 2, 3], ids=["latest", "two", "all"])
def test_damaged_checkpoints_on_the_command_line(small_model, stopped, tmp_path, caplog, damage, file, spoiled):
    """They are named and passed over; those before are used, and the result is the same."""
    folder = tmp_path / "stopped"
    shutil.copytree(stopped, folder)
    latest = sorted((folder / "mine" / "checkpoints").iterdir(), reverse=True)
    assert len(latest) == 3
    for checkpoint in latest[:spoiled]:
        damage(checkpoint / file, 0.6)
    assert main(["train", str(write_config(small_model, folder, DAMAGED_STEPS, checkpoints_kept=3))]) == 0
    for checkpoint in latest[:spoiled]:
        assert f"{checkpoint} cannot be resumed" in caplog.text
    step = 0 if spoiled == 3 else int(latest[spoiled].name.removeprefix("step_"))
    assert (f"Resumed after step {step} of mine" in caplog.text) == bool(step)
    assert_same_run(folder, stopped.with_name("whole"), DAMAGED_STEPS)
