"""With `--json`, every line of the output is an object with known keys, and text for people goes elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lora_crucible.cli.main import main

CONFIG = """\
base_model: demo
train_data_dir: demo
output_dir: {folder}
output_name: mine
max_train_steps: 2
batch_size: 2
sample_prompts: a
sample_steps: 1
validation_percent: 10
save_steps: 1
measure: never
report_to: none
"""

KEYS = {
    "preparing": {"what", "done", "total"},
    "plan": {"name", "lora", "folder", "step", "steps", "settings", "reasons", "memory", "notes"},
    "step": {
        *("step", "steps", "loss", "learning_rates", "gradient_norm", "seconds", "memory_gb", "skipped"),
        "seconds_left",
    },
    "sample": {"step", "steps", "files", "texts"},
    "validation": {"step", "error"},
    "checkpoint": {"step", "folder"},
    "warning": {"text"},
}
"""The keys of each event that docs/command_line.md names, beside `event` and `config`."""


ROOT = Path(__file__).parents[3]


def test_the_documentation_names_every_key():
    page = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for event, keys in KEYS.items():
        assert keys == set(rows[event].split("`")[3::2]), event


def events(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    def no_constant(name: str):
        raise ValueError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=no_constant) for line in capsys.readouterr().out.splitlines()]


def test_a_run_tells_everything_as_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.format(folder=tmp_path))
    assert main(["train", str(path), "--json", "--set", "lora_rank=3"]) == 0
    told = events(capsys)
    for one in told[:-1]:
        assert one.keys() == {"event", "config"} | KEYS[one["event"]], one
        assert one["config"] == str(path)
    kinds = [one["event"] for one in told]
    assert {"preparing", "plan", "step", "sample", "validation", "checkpoint"} <= set(kinds)
    assert kinds[-1] == "finished"
    (plan,) = (one for one in told if one["event"] == "plan")
    assert plan["settings"]["lora_rank"] == 3
    assert "learning_rate" in plan["reasons"]
    steps = [one for one in told if one["event"] == "step"]
    assert [(one["step"], one["steps"]) for one in steps] == [(1, 2), (2, 2)]
    assert steps[-1]["seconds_left"] == 0
    for one in told:
        if one["event"] == "sample":
            assert [Path(file).is_file() for file in one["files"]] == [True]
        if one["event"] == "checkpoint":
            assert one["step"] in (1, 2)
    end = told[-1]
    assert (end["command"], end["exit"], end["steps"], end["name"]) == ("train", 0, 2, "mine")
    for key in ("lora", "folder", "report"):
        assert Path(end[key]).exists()
    assert end["loss"] == steps[-1]["loss"]
    assert end["verdict"] in ("too little", "good", "too much", "none")


def test_an_error_is_the_end_with_its_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("base_model: demo\ntrain_data_dir: demo\nlora_rank: 0\n")
    assert main(["train", str(path), "--json"]) == 2
    output = capsys.readouterr()
    (end,) = map(json.loads, output.out.splitlines())
    assert (end["event"], end["command"], end["exit"], end["kind"]) == ("finished", "train", 2, "settings")
    assert "lora_rank" in end["error"]
    assert "lora_rank" in output.err


def test_check_tells_what_would_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.format(folder=tmp_path))
    assert main(["check", str(path), "--json"]) == 0
    end = events(capsys)[-1]
    assert (end["command"], end["exit"], end["valid"]) == ("check", 0, True)
    assert end["settings"]["max_train_steps"] == 2
    assert "learning_rate" in end["reasons"]
    assert "18 images" in end["report"]
