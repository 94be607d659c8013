"""Trackers show what a run writes, and never stop it."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from accelerate import PartialState
from lora_crucible.config import ResolvedConfig, parse_config
from lora_crucible.distributed.processes import Processes
from lora_crucible.errors import CrucibleError
from lora_crucible.events.step import RowResult, StepReport
from lora_crucible.runs import trackers
from lora_crucible.runs.best_effort import BestEffort
from lora_crucible.runs.paths import RunFiles
from lora_crucible.runs.trackers import Trackers
from several import run_together

STEPS = [
    StepReport(1, 0.5, (RowResult("cat.png", 0.4, 0.3),), {"model": 0.0, "text encoder": 0.0}, 1.5, 0.25, 1.25),
    StepReport(2, 0.25, (RowResult("b.png", 0.75, 0.9),), {"model": 1e-4, "text encoder": 5e-5}, 0.5, 0.25, 1.5),
]


def settings(report_to: str) -> ResolvedConfig:
    return ResolvedConfig.model_construct(report_to=report_to, lora_rank=8, sample_prompts="one\ntwo | three")


def sent(folder: Path, config: ResolvedConfig, steps: int = 0) -> BestEffort:
    best_effort = BestEffort()
    shown = Trackers(config, RunFiles("mine", folder / "mine.safetensors", folder, "12"), best_effort, steps)
    for step in STEPS[steps:]:
        shown.step(step)
    shown.measured(2, 0.125)
    shown.samples(2, torch.full((2, 8, 8, 3), 0.5), ("one", "two"))
    shown.close()
    return best_effort


def read(folder: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return events


def curve(events, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_tensorboard_shows_numbers_settings_and_samples(tmp_path):
    assert sent(tmp_path, settings("tensorboard")).notes == []
    events = read(tmp_path)
    assert curve(events, "loss") == [(1, 0.5), (2, 0.25)]
    assert curve(events, "error/0.75-1.00") == [(2, 0.75)]
    assert curve(events, "learning_rate/text encoder") == [(1, 0.0), (2, pytest.approx(5e-5))]
    assert curve(events, "validation/error") == [(2, 0.125)]
    assert {"gradient_norm", "seconds", "memory_gb"} <= set(events.Tags()["scalars"])
    assert [image.step for image in events.Images("samples")] == [2]
    (table,) = events.Tensors("settings/text_summary")
    assert b"| lora_rank | 8 |" in table.tensor_proto.string_val[0]
    assert b"one two \\| three" in table.tensor_proto.string_val[0]
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == []


def test_steps_that_are_trained_again_are_shown_once(tmp_path):
    sent(tmp_path, settings("tensorboard"))
    sent(tmp_path, settings("tensorboard"), steps=1)
    assert curve(read(tmp_path), "loss") == [(1, 0.5), (2, 0.25)]


def test_auto_is_tensorboard_where_it_is_installed(tmp_path, monkeypatch):
    sent(tmp_path / "with", settings("auto"))
    assert list((tmp_path / "with").glob("events*"))
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for where, report_to in (("without", "auto"), ("none", "none")):
        assert sent(tmp_path / where, settings(report_to)).notes == []
        assert not (tmp_path / where).exists()


def test_a_broken_tracker_is_noted_once_and_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.delattr("torch.utils.tensorboard.SummaryWriter")
    (note,) = sent(tmp_path, settings("tensorboard")).notes
    assert "TensorBoard could not be written" in note


def test_a_launch_with_deepspeed_does_not_need_deepspeed(tmp_path, monkeypatch):
    """accelerate would look for it where it only has to know which process this is."""

    def work(processes: Processes) -> None:
        PartialState._reset_state()
        if processes.is_main:
            assert sent(tmp_path / "run", settings("tensorboard")).notes == []

    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr("accelerate.state.is_deepspeed_available", lambda: False)
    run_together(2, work, tmp_path)


def test_only_the_process_that_writes_has_trackers(tmp_path):
    shown = Trackers(
        settings("tensorboard"), RunFiles("mine", tmp_path / "l", tmp_path / "run", "1"), BestEffort(), writes=False
    )
    shown.step(STEPS[0])
    shown.close()
    assert not (tmp_path / "run").exists()


@pytest.fixture
def wandb(monkeypatch) -> list[tuple]:
    """What a stand-in for the package wandb was asked to do."""
    asked: list[tuple] = []
    run = SimpleNamespace(
        log=lambda values, step: asked.append(("log", values, step)), finish=lambda: asked.append(("finish",))
    )
    module = ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.init = lambda **facts: (asked.append(("init", facts)), run)[1]
    module.config = SimpleNamespace(update=lambda values, allow_val_change: asked.append(("config", values)))
    module.Image = lambda pixels: ("image", pixels.shape, pixels.dtype.name)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return asked


def test_wandb_is_sent_the_same_and_resumes_its_run(tmp_path, wandb):
    assert sent(tmp_path, settings("wandb")).notes == []
    assert wandb[0] == (
        "init",
        {"project": "lora-crucible", "dir": str(tmp_path), "name": "mine", "id": "mine-12", "resume": "allow"},
    )
    assert wandb[1][1]["lora_rank"] == 8
    logged = [(values, step) for kind, values, step in (entry for entry in wandb if entry[0] == "log")]
    assert [(values["loss"], step) for values, step in logged[:2]] == [(0.5, 1), (0.25, 2)]
    assert logged[2] == ({"validation/error": 0.125}, 2)
    assert logged[3] == ({"samples": [("image", (8, 8, 3), "uint8")] * 2}, 2)
    assert wandb[-1] == ("finish",)
    assert not list(tmp_path.glob("events*"))


def test_a_service_that_breaks_off_is_left_alone(tmp_path, wandb, monkeypatch):
    def fail(**facts):
        raise ConnectionError("no route to the server")

    monkeypatch.setattr(sys.modules["wandb"], "init", fail)
    (note,) = sent(tmp_path, settings("wandb")).notes
    assert "Weights & Biases could not be written" in note
    assert "no route" in note
    assert wandb == []


@pytest.mark.parametrize(
    ("written", "meant"),
    [("auto", "auto"), ("None", "none"), ("", "none"), (["none"], "none"), ("TensorBoard", "tensorboard")],
)
def test_the_setting_takes_the_spellings_of_other_trainers(written, meant):
    assert parse_config({"report_to": written}).report_to == meant


def test_several_trackers(wandb):
    assert parse_config({"report_to": ["wandb", "tensorboard"]}).report_to == "wandb, tensorboard"


def test_wandb_is_refused_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(CrucibleError, match="wandb is not installed; install it with pip install wandb"):
        parse_config({"report_to": "wandb"})
    with pytest.raises(CrucibleError, match="must be auto, none, tensorboard, wandb"):
        parse_config({"report_to": "mlflow"})
