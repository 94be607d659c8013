"""Whole runs on the toys, into whose losses trouble is put."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lora_crucible.config import parse_config
from lora_crucible.data.base import Dataset
from lora_crucible.errors import CrucibleError
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.base import BaseModel
from lora_crucible.models.examples import CachedExample, RowLosses
from lora_crucible.monitoring import anomalies as trouble
from lora_crucible.optim.stepper import OptimizerStepper
from lora_crucible.runs.checkpoint import Checkpoints
from lora_crucible.runs.paths import RunFiles
from lora_crucible.seeding import derived_seed
from lora_crucible.training.plan import plan_run
from lora_crucible.training.result import RunResult
from lora_crucible.training.run import run_training
from toy import Numbers
from toy_language import Sayings
from toys import TOYS

pytestmark = pytest.mark.usefixtures("no_curves", "checkpoints_in_time")

SETTINGS = {
    "max_train_steps": 10,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "sample_prompts": "crux, a red circle",
    "target_modules": "linear",
    "sample_every_n_steps": 99,
    "save_precision": "fp32",
    "save_steps": 3,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
    "learning_rate": 2e-3,
    "seed": 5,
}


class Faults:
    """A base model's losses, with trouble in chosen steps, counted from 1, as often as these are tried."""

    def __init__(self, losses: Callable[..., RowLosses], steps: int) -> None:
        self._losses = losses
        self._places = {derived_seed(5, "row", step, row): (step + 1, row) for step in range(steps) for row in range(8)}
        self.tried: list[int] = []
        self.loss: Callable[[int, CachedExample], float] = lambda step, row: 1.0
        """What the loss of an example is multiplied by."""
        self.gradient: Callable[[int], float] = lambda step: 1.0
        """What the gradients of a step are multiplied by, its loss being as it is."""

    def __call__(self, rows: list[CachedExample], seeds: list[int], timesteps: list[float] | None = None) -> RowLosses:
        if timesteps is not None or seeds[0] not in self._places:  # validation, and the step that is measured first
            return self._losses(rows, seeds, timesteps)
        step, _ = self._places[seeds[0]]
        self.tried.append(step)
        losses = self._losses(rows, seeds)
        values = losses.values * torch.tensor([self.loss(step, row) for row in rows])
        by = self.gradient(step)
        if by != 1:
            values.register_hook(lambda gradient: gradient * by)
        return replace(losses, values=values)

    def times(self, step: int) -> int:
        return self.tried.count(step)


@pytest.fixture(scope="module", params=TOYS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def base_model(kind) -> BaseModel:
    return TOYS[kind][0]()


@pytest.fixture(scope="module")
def dataset(kind) -> Dataset:
    """Return examples of which none is held out."""
    return Numbers() if kind == "numbers" else Sayings(held_out=())


@pytest.fixture
def faults(base_model, monkeypatch) -> Faults:
    found = Faults(base_model.losses, 100)
    monkeypatch.setattr(base_model, "losses", found)
    return found


@pytest.fixture
def train(base_model, dataset, tmp_path) -> Callable[..., RunResult]:
    def trained(name: str = "lora", hooks: Callbacks | None = None, **values) -> RunResult:
        files = RunFiles.claim(name, tmp_path, tmp_path)
        return run_training(
            base_model, plan_run(base_model, dataset, parse_config({**SETTINGS, **values})), files, hooks
        )

    return trained


def logged(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def rates(folder: Path) -> list[float]:
    return [line["learning_rates"]["model"] for line in logged(folder)]


def times(number: int, fault: float, faults: Faults) -> Callable[..., float]:
    """A fault of step 8 for the first so many times."""
    return lambda step, *_: fault if step == 8 and faults.times(8) <= number else 1.0


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_the_run_goes_back_and_on_at_half_the_learning_rate(train, faults, where, fault):
    plain = train("plain")
    faults.tried.clear()
    setattr(faults, where, times(1, fault, faults))
    result = train()
    assert faults.tried == [1, 2, 3, 4, 5, 6, 7, 8, 7, 8, 9, 10]
    assert [line["step"] for line in logged(result.files.folder)] == list(range(1, 11))
    assert result.losses[:7] == plain.losses[:7]  # that of step 7 is still measured with the weights after step 6
    assert result.losses[7] != plain.losses[7]
    assert rates(result.files.folder) == [2e-3] * 6 + [1e-3] * 4
    assert len(result.losses) == 10
    assert f"{where} of step 8 was" in result.report
    assert "went back to its last good state 1 time" in result.report
    assert "finished after 10 of 10 steps" in result.report


def test_before_the_first_checkpoint_it_goes_back_to_the_start(train, faults):
    faults.loss = lambda step, row: math.nan if step == 2 and faults.times(2) == 1 else 1.0
    result = train()
    assert faults.tried[:4] == [1, 2, 1, 2]
    assert rates(result.files.folder) == [1e-3] * 10


def test_each_time_lowers_the_learning_rate_again(train, faults):
    faults.loss = times(3, math.nan, faults)
    result = train(learning_rate=2e-4)
    assert rates(result.files.folder)[6:] == pytest.approx([2.5e-5] * 4)
    assert "3 times" in result.report


def test_repeated_trouble_ends_the_run_with_the_lora_of_the_good_state(train, faults, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train("good", Callbacks(stepped=interrupt_after(6)))
    faults.loss = times(99, math.nan, faults)
    with pytest.raises(CrucibleError, match=r"loss of step 8 was nan") as error:
        train()
    assert faults.times(8) == trouble.MOST_RETURNS + 1
    assert str(tmp_path / "lora.safetensors") in str(error.value)
    tensors, metadata = read_lora(tmp_path / "lora.safetensors")
    assert metadata["ss_steps"] == "6"
    good, _ = read_lora(tmp_path / "good.safetensors")
    assert all(torch.equal(tensors[key], good[key]) for key in good)
    report = (tmp_path / "lora" / "report.txt").read_text()
    assert "stopped by an error after 6 of 10 steps" in report
    assert "went back to its last good state 6 times" in report
    assert Checkpoints(tmp_path / "lora" / "checkpoints", 1).latest()[0] == 6


def interrupt_after(step: int) -> Callable[..., None]:
    def stop(report, steps):
        if report.step == step:
            raise KeyboardInterrupt

    return stop


def test_one_bad_example_is_named(train, faults):
    bad: list[str] = []

    def spoil(step: int, row: CachedExample) -> float:
        if step == 8 and (not bad or row.name == bad[0]):
            bad[:] = [row.name]
            return math.nan
        return 1.0

    faults.loss = spoil
    with pytest.raises(CrucibleError) as error:
        train()
    assert f"with {bad[0]}. That" in str(error.value)
    assert f"It was {bad[0]} every time" in str(error.value)


def test_trouble_before_anything_was_trained_leaves_no_file(train, faults, tmp_path):
    faults.loss = lambda step, row: math.nan
    with pytest.raises(CrucibleError, match="No step was done before it"):
        train()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def soon(monkeypatch) -> None:
    """What is usual is known after five steps."""
    monkeypatch.setattr(trouble, "ENOUGH", 5)


def test_a_spike_is_skipped_and_changes_no_weight(train, faults, soon, dataset):
    plain = train("plain")
    faults.gradient = lambda step: 1e5 if step == 8 else 1.0
    result = train()
    lines = logged(result.files.folder)
    assert [line["step"] for line in lines if line["skipped"]] == [8]
    assert result.losses[:8] == plain.losses[:8]
    assert result.losses[8] != plain.losses[8]
    assert "Skipped 1 step that would have changed the LoRA too much: step 8 (gradient " in result.report
    assert all(name in result.report for name in lines[7][f"{dataset.unit}s"])


def test_a_run_without_trouble_is_as_one_without_the_watch(train, faults, monkeypatch):
    watched = train("watched", lora_dropout=0.1)
    monkeypatch.setattr(trouble.AnomalyDetector, "judge", lambda *_: "go on")
    plain = train("plain", lora_dropout=0.1)
    assert watched.losses == plain.losses
    assert all(torch.equal(watched.lora[key], plain.lora[key]) for key in plain.lora)
    assert "kipped" not in watched.report
    assert "went back" not in watched.report


def test_trouble_and_interruption_together_end_as_trouble_alone(train, faults, base_model, dataset, soon):
    """What was slowed down, and what was skipped, is so after a resume too."""

    def with_trouble() -> None:
        faults.tried.clear()
        faults.loss = lambda step, row: math.nan if step == 5 and faults.times(5) == 1 else 1.0
        faults.gradient = lambda step: 1e5 if step in (8, 9) else 1.0

    with_trouble()
    whole = train("whole")
    with_trouble()
    with pytest.raises(KeyboardInterrupt):
        train("parts", Callbacks(stepped=interrupt_after(8)))
    files = RunFiles.of(whole.files.folder.parent / "parts", whole.files.folder.parent, "1")
    _, state = Checkpoints(files.checkpoints, 1).latest()
    parts = run_training(base_model, plan_run(base_model, dataset, parse_config(SETTINGS)), files, start=state)
    assert parts.losses == whole.losses
    assert rates(files.folder) == rates(whole.files.folder) == [2e-3] * 3 + [1e-3] * 7
    assert [line["skipped"] for line in logged(files.folder)] == [
        line["skipped"] for line in logged(whole.files.folder)
    ]
    assert all(torch.equal(whole.lora[key], parts.lora[key]) for key in whole.lora)
    told = [line for line in whole.report.splitlines() if "went back" in line or "Skipped" in line]
    assert len(told) == 2
    assert all(line in parts.report for line in told)


def poison_after(monkeypatch, number: int) -> None:
    """A weight is no number after that many steps of the optimizer."""
    step, count = OptimizerStepper.step, []

    def poisoned(optimization):
        found = step(optimization)
        count.append(1)
        if len(count) == number:
            with torch.no_grad():
                optimization.parameters[1].flatten()[0] = math.nan
        return found

    monkeypatch.setattr(OptimizerStepper, "step", poisoned)


def test_weights_that_are_no_numbers_are_not_kept(train, faults, monkeypatch, tmp_path):
    """The step in which a checkpoint is due spoils the weights: it is the one before that the run goes back to."""
    poison_after(monkeypatch, 6)
    result = train(checkpoints_kept=9)
    assert faults.tried == [1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 8, 9, 10]
    assert all(tensor.isfinite().all() for tensor in result.lora.values())
    for folder in (tmp_path / "lora" / "checkpoints").iterdir():
        assert all(tensor.isfinite().all() for tensor in read_lora(folder / "lora.safetensors")[0].values())


def test_weights_that_the_last_step_spoils_are_not_the_result(train, faults, monkeypatch, tmp_path):
    poison_after(monkeypatch, 10)
    with pytest.raises(CrucibleError, match="NaN or infinite weights"):
        train()
    tensors, metadata = read_lora(tmp_path / "lora.safetensors")
    assert metadata["ss_steps"] == "9"
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_spoiled_state_is_not_gone_on_from(train, faults, base_model, dataset, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(hooks=Callbacks(stepped=interrupt_after(5)))
    files = RunFiles.of(tmp_path / "lora", tmp_path, "1")
    _, state = Checkpoints(files.checkpoints, 1).latest()
    state["stepper"]["weights"][0].fill_(math.nan)
    faults.tried.clear()
    with pytest.raises(CrucibleError, match="state after step 5 that this run was to be resumed from"):
        run_training(base_model, plan_run(base_model, dataset, parse_config(SETTINGS)), files, start=state)
    assert faults.tried == []


def test_spoiled_moments_of_the_optimizer_end_the_run(train, faults, base_model, dataset, tmp_path):
    """Every step from this state makes the weights no numbers: it is not tried forever."""
    with pytest.raises(KeyboardInterrupt):
        train(hooks=Callbacks(stepped=interrupt_after(5)))
    before, _ = read_lora(tmp_path / "lora.safetensors")
    files = RunFiles.of(tmp_path / "lora", tmp_path, "1")
    _, state = Checkpoints(files.checkpoints, 1).latest()
    for moments in state["stepper"]["optimizer"]["state"].values():
        moments["exp_avg"].fill_(math.nan)
    with pytest.raises(CrucibleError, match=f"{trouble.MOST_RETURNS + 1}th time"):
        run_training(base_model, plan_run(base_model, dataset, parse_config(SETTINGS)), files, start=state)
    after, _ = read_lora(tmp_path / "lora.safetensors")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    report = (tmp_path / "lora" / "report.txt").read_text()
    assert report.count("The loss of step 7 was nan") == 1  # the same trouble is told once


@pytest.mark.parametrize("hook", ["stepped", "sampled"])
def test_an_error_in_a_hook_leaves_checkpoint_and_lora(train, faults, tmp_path, hook):
    def fail(*facts):
        if (facts[0].step if hook == "stepped" else facts[0]) == 5:
            raise RuntimeError("the disk of the progress bar is full")

    with pytest.raises(RuntimeError, match="progress bar"):
        train(hooks=Callbacks(**{hook: fail}), sample_every_n_steps=5)
    assert read_lora(tmp_path / "lora.safetensors")[1]["ss_steps"] == "5"
    assert Checkpoints(tmp_path / "lora" / "checkpoints", 1).latest()[0] == 5
    assert "stopped by an error after 5 of 10 steps" in (tmp_path / "lora" / "report.txt").read_text()


def test_trouble_is_said_at_once(train, faults, caplog):
    faults.loss = times(1, math.nan, faults)
    with caplog.at_level(logging.WARNING):
        train()
    said = [record.getMessage() for record in caplog.records if record.name.startswith("lora_crucible")]
    assert any("loss of step 8 was nan" in text for text in said)
    assert any("back to the state after step 6" in text for text in said)
