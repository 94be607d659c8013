"""Clocks that jump by years, and files from the future."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest
import torch
from lora_crucible.config import parse_config
from lora_crucible.data.cache import TensorCache
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.training.result import RunResult
from lora_crucible.training.resume import train_or_resume
from toy import Numbers, Toy

pytestmark = pytest.mark.usefixtures("no_curves")

YEAR = 365 * 24 * 3600
QUICK = {
    "max_train_steps": 6,
    "batch_size": 2,
    "sample_steps": 1,
    "save_steps": 2,
    "measure": "never",
    "target_modules": "linear",
}


class Stop(BaseException):
    pass


def train(base_model, dataset, folder: Path, stop_after: int = 0, retrain: bool = False) -> RunResult:
    def stepped(report, steps) -> None:
        if report.step == stop_after:
            raise Stop

    config = parse_config(QUICK)
    return train_or_resume(base_model, dataset, config, folder, folder, Callbacks(stepped=stepped), retrain=retrain)


@pytest.fixture
def jumping_clock(monkeypatch):
    """Each look at it is years away from the one before."""
    now, jumps = time.time(), cycle((0, 10 * YEAR, -20 * YEAR, 30 * YEAR, -40 * YEAR))
    monkeypatch.setattr(time, "time", lambda: now + next(jumps))


def test_a_run_under_a_jumping_clock(tmp_path, jumping_clock):
    began = time.monotonic()
    whole = train(Toy(), Numbers(), tmp_path / "whole")
    with pytest.raises(Stop):
        train(Toy(), Numbers(), tmp_path / "parts", stop_after=3)
    parts = train(Toy(), Numbers(), tmp_path / "parts")
    seconds = time.monotonic() - began
    assert "Resumed after step 3 of lora" in parts.report
    first, second = read_lora(whole.files.lora)[0], read_lora(parts.files.lora)[0]
    assert all(torch.equal(first[key], second[key]) for key in first)
    for result in (whole, parts):
        assert 0 <= int(re.search(r"of 6 steps in (\d+) s", result.report)[1]) <= seconds + 1
        lines = [json.loads(line) for line in (result.files.folder / "log.jsonl").read_text().splitlines()]
        assert all(0 < line["seconds"] < seconds for line in lines)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", result.lora.metadata["modelspec.date"])
    assert "Nothing was trained" in train(Toy(), Numbers(), tmp_path / "parts").report


@pytest.mark.parametrize("years", [-30, 10])
def test_the_run_that_was_started_last_goes_on_whatever_the_files_times_are(tmp_path, years):
    train(Toy(), Numbers(), tmp_path)
    with pytest.raises(Stop):
        train(Toy(), Numbers(), tmp_path, stop_after=3, retrain=True)
    for path in (tmp_path / "lora_2").rglob("*"):
        os.utime(path, (time.time() + years * YEAR,) * 2)
    result = train(Toy(), Numbers(), tmp_path)
    assert result.files.name == "lora_2"
    assert "Resumed after step 3 of lora_2" in result.report


@pytest.mark.parametrize("years", [-30, 10])
def test_what_is_cached_counts_whatever_its_time_is(base_model, dataset, tmp_path, years):
    dataset = replace(dataset, images=dataset.images[:4])
    first = train(base_model, dataset, tmp_path)
    entries = list((tmp_path / ".cache").glob("??/*"))
    for path in entries:
        os.utime(path, (time.time() + years * YEAR,) * 2)
    assert "Cache: 0 encoded" in train(base_model, dataset, tmp_path, retrain=True).report
    assert set(entries) <= set((tmp_path / ".cache").glob("??/*"))
    assert "Cache: 0 encoded" not in first.report


def test_files_from_the_future_do_not_keep_old_ones_from_being_deleted(tmp_path):
    cache = TensorCache(tmp_path, limit=0)
    for name, age in (("old", -2), ("future", 2)):
        cache.get(name, lambda: torch.zeros(100))
        latest = max(tmp_path.glob("??/*"), key=lambda path: path.stat().st_mtime)
        os.utime(latest, (time.time() + age * YEAR,) * 2)
    cache.clean()
    left = TensorCache(tmp_path)
    assert not left.holds("old")
    assert left.holds("future")
