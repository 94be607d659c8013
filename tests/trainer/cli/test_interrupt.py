"""After Ctrl-C, SIGTERM or an error in a caller's hook, what was trained is kept, and the next start resumes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lora_crucible.cli.main import main
from lora_crucible.config import parse_config
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.training.result import RunResult
from lora_crucible.training.resume import train_or_resume
from processes import assert_whole, start_training, wait_until
from toy import Numbers, Toy

CONFIG = """\
base_model: demo
train_data_dir: demo
output_dir: {folder}
output_name: mine
max_train_steps: {steps}
batch_size: {batch_size}
gradient_accumulation_steps: {accumulation}
sample_steps: 1
measure: never
"""


def log_lines(folder: Path) -> int:
    log = folder / "mine" / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_within_a_batch_and_keeps_everything(tmp_path, capsys, caplog, number):
    """A step has so many batches that the current one cannot be finished before the process ends."""
    folder, output, config = tmp_path / "out", tmp_path / "output.txt", tmp_path / "config.yaml"
    config.write_text(CONFIG.format(folder=folder, steps=3, batch_size=1, accumulation=256))
    process = start_training(config, output)
    assert wait_until(lambda: log_lines(folder) == 1, process), output.read_text()
    time.sleep(0.1)
    process.send_signal(number)
    assert process.wait() == 128 + number
    assert log_lines(folder) == 1
    said = output.read_text()
    for text in ("Stopping after this batch", "cancelled after 1 of 3 steps", "Stopped."):
        assert text in said
    assert "Traceback" not in said
    assert read_lora(folder / "mine.safetensors")[1]["ss_steps"] == "1"
    assert [path.name for path in (folder / "mine" / "checkpoints").iterdir()] == ["step_000001"]
    config.write_text(CONFIG.format(folder=folder, steps=2, batch_size=1, accumulation=256))
    assert main(["train", str(config)]) == 0
    assert "Resumed after step 1 of mine" in capsys.readouterr().out
    assert read_lora(folder / "mine.safetensors")[1]["ss_steps"] == "2"


IN_A_BATCH = """
import time
from lora_crucible.cli.interrupt import asked_to_stop

with asked_to_stop() as check:
    print("In a batch.", flush=True)
    time.sleep(600)
    check()
"""


def test_a_second_ctrl_c_ends_it_at_once(tmp_path):
    """The process is in the middle of a batch that takes long."""
    output = tmp_path / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen([sys.executable, "-c", IN_A_BATCH], stdout=file, stderr=subprocess.STDOUT)
    assert wait_until(lambda: "In a batch" in output.read_text(), process)
    process.send_signal(signal.SIGINT)
    assert wait_until(lambda: "Stopping after this batch" in output.read_text(), process)
    process.send_signal(signal.SIGINT)  # as a launcher of processes passes it on
    time.sleep(1.1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert "Stopped without saving" in output.read_text()


class Broken(RuntimeError):
    pass


VALUES = {
    "max_train_steps": 5,
    "batch_size": 4,
    "sample_prompts": "one",
    "sample_every_n_steps": 2,
    "target_modules": "linear",
}


def train(folder: Path, hooks: Callbacks | None = None) -> RunResult:
    return train_or_resume(Toy(), Numbers(), parse_config(VALUES), folder, folder, hooks)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunResult:
    return train(tmp_path_factory.mktemp("whole"))


def fail_at(number: int):
    calls = []

    def called(*arguments) -> None:
        calls.append(arguments)
        if len(calls) == number:
            raise Broken("the window was closed")

    return called


@pytest.mark.parametrize(
    ("hooks", "done"),
    [
        (lambda: Callbacks(preparing=fail_at(2)), 0),
        (lambda: Callbacks(stepped=fail_at(3)), 3),
        (lambda: Callbacks(sampled=fail_at(1)), 0),
        (lambda: Callbacks(sampled=fail_at(2)), 2),
        (lambda: Callbacks(sampled=fail_at(3)), 4),
        (lambda: Callbacks(sampled=fail_at(4)), 5),
    ],
    ids=["preparing", "stepped", "first sample", "sample between", "another between", "last sample"],
)
def test_an_error_in_a_hook_loses_nothing(whole, tmp_path, hooks, done):
    with pytest.raises(Broken, match="the window was closed"):
        train(tmp_path, hooks())
    assert [path.name for path in tmp_path.glob("*.safetensors")] == (["lora.safetensors"] if done else [])
    assert_whole(tmp_path)
    steps = []
    parts = train(tmp_path, Callbacks(stepped=lambda report, _: steps.append(report.step)))
    assert steps == list(range(done + 1, 6))
    first, second = read_lora(whole.files.lora)[0], read_lora(parts.files.lora)[0]
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert parts.files.name == "lora"
