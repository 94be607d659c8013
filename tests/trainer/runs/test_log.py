"""What a run writes of its steps can be read again."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from lora_crucible.events.step import RowResult, StepReport
from lora_crucible.runs import log as run_log
from lora_crucible.runs.log import RunLog, read_log

STEPS = [
    StepReport(1, 0.5, (RowResult("猫.png", 0.4, 0.3),), {"model": 0.0, "text encoder": 0.0}, 1.5, 0.25, 1.25),
    StepReport(2, 0.25, (RowResult("b.png", 0.75, 0.9),), {"model": 1e-4, "text encoder": 5e-5}, 0.5, 0.25, 1.5),
]


def write(folder: Path) -> None:
    written = RunLog(folder, "image")
    for step in STEPS:
        written.write(step)


def test_a_line_per_step(tmp_path):
    write(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0]["images"] == ["猫.png"]
    assert lines[0]["errors"] == {"0.25-0.50": 0.4}
    assert lines[1]["learning_rates"] == {"model": 1e-4, "text encoder": 5e-5}
    numbers = ("step", "loss", "gradient_norm", "seconds", "memory_gb")
    assert [[line[name] for name in numbers] for line in lines] == [
        [getattr(step, name) for name in numbers] for step in STEPS
    ]


def test_a_line_that_finds_no_room_leaves_no_half(tmp_path, monkeypatch):
    """The system writes what fits, and says how much that was."""
    written = RunLog(tmp_path, "image")
    written.write(STEPS[0])
    whole = (tmp_path / "log.jsonl").read_bytes()

    class Full(io.FileIO):
        def write(self, content):
            return super().write(content[:10])

    with monkeypatch.context() as full:
        full.setattr(run_log, "open", lambda path, mode, buffering: Full(path, mode), raising=False)
        with pytest.raises(OSError, match="No space left"):
            written.write(STEPS[1])
    assert (tmp_path / "log.jsonl").read_bytes() == whole
    written.write(STEPS[1])
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2]


def test_damaged_lines_are_passed_over(tmp_path):
    write(tmp_path)
    path = tmp_path / "log.jsonl"
    first, second = path.read_text(encoding="utf-8").splitlines()
    path.write_bytes(b"\xff{}\n[1]\n" + first.encode() + b"\n" + second[:-5].encode() + b"}\n\n" + second.encode())
    assert [line["step"] for line in read_log(path)] == [1, 2]
    RunLog(tmp_path, "image", 1)
    assert path.read_text(encoding="utf-8") == first + "\n"
    assert read_log(tmp_path / "nowhere") == []
