"""Several configs in one call are trained one after the other, whatever becomes of each."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from lora_crucible.cli.main import main
from processes import start_command, wait_until

CONFIG = """\
base_model: demo
train_data_dir: demo
output_dir: {folder}
output_name: {name}
max_train_steps: {steps}
batch_size: 2
sample_steps: 1
sample_every_n_steps: 100000
measure: never
report_to: none
"""


def configs(folder: Path, *names: str, steps: int = 1) -> list[str]:
    paths = [folder / f"{name}.yaml" for name in names]
    for name, path in zip(names, paths, strict=True):
        path.write_text("lora_rank: 0\n" if name == "bad" else CONFIG.format(folder=folder, name=name, steps=steps))
    return list(map(str, paths))


@pytest.mark.slow
def test_one_that_fails_does_not_stop_the_others_and_images_are_encoded_once(tmp_path, capfd):
    red, bad, blue = configs(tmp_path, "red", "bad", "blue")
    assert main(["train", red, bad, blue, "--set", "lora_rank=3"]) == 8
    said = capfd.readouterr().out
    assert "Cache: 41 encoded, 0 found" in said
    assert "Cache: 0 encoded, 41 found" in said
    assert said.count("rank 3, alpha") == 2
    summary = said[said.index("Summary:") :].splitlines()[1:]
    assert [line.split(",")[0].strip() for line in summary] == [
        f"{red}: finished",
        f"{bad}: wrong options or settings",
        f"{blue}: finished",
    ]
    assert str(tmp_path / "red.safetensors") in summary[0]
    assert (tmp_path / "blue.safetensors").is_file()


@pytest.mark.slow
def test_all_of_them_as_json(tmp_path, capfd):
    red, bad = configs(tmp_path, "red", "bad")
    assert main(["train", red, bad, "--json"]) == 8
    told = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert {one["config"] for one in told[:-1]} == {red, bad}
    end = told[-1]
    assert (end["event"], end["exit"]) == ("finished", 8)
    assert [(run["config"], run["exit"]) for run in end["runs"]] == [(red, 0), (bad, 2)]
    assert end["runs"][0]["lora"] == str(tmp_path / "red.safetensors")
    assert end["runs"][1]["kind"] == "settings"


@pytest.mark.slow
def test_a_signal_stops_the_one_that_runs_and_starts_no_other(tmp_path):
    red, blue = configs(tmp_path, "red", "blue", steps=100_000)
    output = tmp_path / "output.txt"
    process = start_command(["train", red, blue], output)
    log = tmp_path / "red" / "log.jsonl"
    assert wait_until(lambda: log.exists() and log.read_bytes().count(b"\n") >= 2, process), output.read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    said = output.read_text()
    assert f"{red}: stopped" in said
    assert f"{blue}: not started" in said
    assert (tmp_path / "red.safetensors").is_file()
    assert not (tmp_path / "blue").exists()
    assert "Traceback" not in said


def test_a_launcher_of_several_processes_trains_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", *configs(tmp_path, "red", "blue")]) == 2
    assert "one after the other" in capsys.readouterr().err
