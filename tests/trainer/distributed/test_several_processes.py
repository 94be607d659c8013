"""Runs of several processes against the same run of one."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import astuple
from pathlib import Path

import pytest
import torch
from lora_crucible.config import parse_config
from lora_crucible.distributed.processes import Processes
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.training.resume import train_or_resume
from several import STOPPED, Launch, run_together
from toy import Numbers, Toy
from toys import TOYS

SETTINGS = {
    "max_train_steps": 20,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "target_modules": "linear",
    "lora_dropout": 0.2,
    "learning_rate": 0.05,
    "sample_prompts": "one\ntwo",
    "sample_every_n_steps": 10,
    "validate_every_n_steps": 5,
    "save_steps": 5,
    "save_precision": "fp32",
    "output_name": "toy",
}
OF_TEXTS = {
    "task_type": "text-generation",
    "measure": "always",
    "max_new_tokens": 8,
    "regularization_rows": True,
    "sample_prompts": "",
}
pytestmark = pytest.mark.usefixtures("no_curves")


def train(folder: Path, kind: str = "numbers", callbacks: Callbacks | None = None, **values):
    base_model, dataset = TOYS[kind]
    config = parse_config(SETTINGS | (OF_TEXTS if kind == "texts" else {}) | values)
    return train_or_resume(base_model(), dataset(), config, folder, folder, callbacks)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The folder of an undisturbed run of one process."""
    return train(tmp_path_factory.mktemp("alone")).files.lora.parent


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "toy" / "log.jsonl").read_text().splitlines()]


def assert_same_run(folder: Path, expected: Path) -> None:
    """The same losses and the same LoRA within 1e-5."""
    assert losses(folder) == pytest.approx(losses(expected), abs=1e-5)
    made, wanted = (read_lora(one / "toy.safetensors")[0] for one in (folder, expected))
    assert made.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(made[key], wanted[key], atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_as_one(alone, tmp_path, count):
    run_together(count, lambda processes: train(tmp_path / "run"), tmp_path)
    assert_same_run(tmp_path / "run", alone)
    report = (tmp_path / "run" / "toy" / "report.txt").read_text()
    assert f"Effective batch 4 (batch_size 2 x gradient_accumulation_steps 2): shared by {count} processes" in report


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_texts_as_one(tmp_path, count):
    alone = train(tmp_path / "alone", "texts")
    run_together(count, lambda processes: train(tmp_path / "run", "texts"), tmp_path)
    assert_same_run(tmp_path / "run", alone.files.lora.parent)
    assert (tmp_path / "run" / "toy" / "measures.md").exists()


def test_all_processes_know_the_same_in_the_end(tmp_path):
    """What decisions are taken by is the same in all of them, although only one writes it."""

    def work(processes) -> None:
        seen, measured = [], []

        def stepped(report, steps) -> None:
            seen.append([report.loss, report.gradient_norm, *map(list, map(astuple, report.rows))])

        def validated(step, error) -> None:
            measured.append([step, error])

        train(tmp_path / "run", callbacks=Callbacks(stepped=stepped, validated=validated))
        assert (len(seen), len(measured)) == (20, 5)
        first, second = processes.gather([seen, measured])
        assert first == second

    run_together(2, work, tmp_path)


def stop_at(step: int, how) -> Callbacks:
    def stepped(report, steps) -> None:
        if report.step == step:
            how()

    return Callbacks(stepped=stepped)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("before", "after"), [(2, 1), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((1, 2), (2, 4), (4, 1)))]
)
def test_resumed_with_another_number_of_processes(alone, tmp_path, before, after):
    def first(processes) -> None:
        train(tmp_path / "run", callbacks=stop_at(7, interrupt))

    for rank, ended in enumerate(Launch(before, first, tmp_path).ended()):
        assert ended.status == STOPPED, (rank, ended.output)
    run_together(after, lambda processes: train(tmp_path / "run"), tmp_path)
    assert "Resumed after step 7" in (tmp_path / "run" / "toy" / "report.txt").read_text()
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_stopped_in_one_process_all_stop_after_the_same_step(alone, tmp_path, rank):
    def work(processes) -> None:
        train(tmp_path / "run", callbacks=stop_at(8, interrupt) if processes.rank == rank else None)

    assert [ended.status for ended in Launch(2, work, tmp_path).ended()] == [STOPPED, STOPPED]
    assert losses(tmp_path / "run") == pytest.approx(losses(alone)[:8], abs=1e-5)
    assert (tmp_path / "run" / "toy" / "checkpoints" / "step_000008").is_dir()
    run_together(2, lambda processes: train(tmp_path / "run"), tmp_path)
    assert_same_run(tmp_path / "run", alone)


class Failing(Toy):
    """A toy that fails in the passes of one step in one process."""

    def __init__(self, rank: int, own: int, error: BaseException | None, step: int = 6) -> None:
        super().__init__()
        self.fails, self.error, self.step, self.passes = rank == own, error, step, 0

    def losses(self, rows, seeds, timesteps=None):
        found = super().losses(rows, seeds, timesteps)
        if timesteps is None:
            self.passes += 1
        if not self.fails or timesteps is not None or self.passes < self.step:
            return found
        self.fails = False
        if self.error is not None:
            raise self.error
        return type(found)(found.values * float("nan"), found.errors, found.timesteps)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_out_of_memory_in_one_process_all_use_less(alone, tmp_path, rank):
    def work(processes) -> None:
        toy = Failing(processes.rank, rank, MemoryError("no room"))
        train_or_resume(toy, Numbers(held_out=(3.0, 5.0)), parse_config(SETTINGS), tmp_path / "run", tmp_path / "run")

    run_together(2, work, tmp_path)
    assert_same_run(tmp_path / "run", alone)
    report = (tmp_path / "run" / "toy" / "report.txt").read_text()
    assert "continued with micro-batches of 1 instead of 2" in report


@pytest.mark.slow
def test_nan_in_one_process_all_go_back(tmp_path):
    def work(processes) -> None:
        toy = Failing(processes.rank, 1, None, step=9)
        result = train_or_resume(toy, Numbers(), parse_config(SETTINGS), tmp_path / "run", tmp_path / "run")
        assert len(result.losses) == 20
        first, second = processes.gather(result.losses)
        assert first == second

    run_together(2, work, tmp_path)
    report = (tmp_path / "run" / "toy" / "report.txt").read_text()
    assert "The run went back to its last good state 1 time" in report


@pytest.mark.slow
def test_an_error_in_one_process_stops_all(tmp_path):
    def work(processes) -> None:
        toy = Failing(processes.rank, 1, RuntimeError("something broke"))
        train_or_resume(toy, Numbers(), parse_config(SETTINGS), tmp_path / "run", tmp_path / "run")

    main, other = Launch(2, work, tmp_path).ended()
    assert (main.status, other.status) == (1, 1)
    assert "process 1 of 2" in main.output
    assert "something broke" in main.output
    assert list((tmp_path / "run" / "toy" / "checkpoints").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_one_killed_the_others_end_and_the_run_goes_on(alone, tmp_path, killed):
    def work(processes) -> None:
        how = stop_at(12, lambda: os.kill(os.getpid(), signal.SIGKILL)) if processes.rank == killed else None
        train(tmp_path / "run", callbacks=how)

    begun = time.monotonic()
    ended = Launch(3, work, tmp_path).ended()
    assert time.monotonic() - begun < 60
    for rank, one in enumerate(ended):
        if rank == killed:
            assert one.status == -signal.SIGKILL
            continue
        assert one.status == 1, one.output
        assert one.seconds - ended[killed].seconds < 30
        assert f"rocess {killed} of 3 (on " in one.output
        assert "is lost" in one.output
        assert "resumes from the last checkpoint" in one.output
    run_together(2, lambda processes: train(tmp_path / "run"), tmp_path)
    assert "Resumed after step" in (tmp_path / "run" / "toy" / "report.txt").read_text()
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.slow
def test_stopped_early_together(tmp_path):
    values = {"early_stopping_patience": 1, "early_stopping_threshold": 0.9, "max_train_steps": 40}
    one = train(tmp_path / "alone", **values)

    def work(processes) -> None:
        assert len(train(tmp_path / "run", **values).losses) == len(one.losses) < 40

    run_together(2, work, tmp_path)
    assert_same_run(tmp_path / "run", tmp_path / "alone")


def test_another_dataset_on_one_machine_is_named(tmp_path):
    def work(processes) -> None:
        numbers = Numbers((1.0, 2.0, 4.0, 8.0 + processes.rank))
        train_or_resume(Toy(), numbers, parse_config(SETTINGS), tmp_path / "run", tmp_path / "run")

    for ended in Launch(2, work, tmp_path).ended():
        assert ended.status == 1
        assert "rocess 1 of 2" in ended.output
        assert "would train another run than process 0 of 2" in ended.output
        assert "the examples or the settings of the dataset are different" in ended.output
    assert not (tmp_path / "run" / "toy").exists()


def test_other_settings_in_one_process_are_named(tmp_path):
    def work(processes) -> None:
        train(tmp_path / "run", lora_rank=4 + processes.rank)

    for ended in Launch(2, work, tmp_path).ended():
        assert ended.status == 1
        assert "lora_rank is 4 there and 5 here" in ended.output


def test_more_processes_than_rows_are_refused(tmp_path):
    def work(processes) -> None:
        train(tmp_path / "run", batch_size=1, gradient_accumulation_steps=1)

    for ended in Launch(2, work, tmp_path).ended():
        assert ended.status == 1
        assert "the effective batch is 1" in ended.output
        assert "gradient_accumulation_steps to 2 or more" in ended.output


def test_a_run_that_is_finished_is_finished_for_all(alone, tmp_path):
    def work(processes) -> None:
        result = train(alone)
        assert ("Nothing was trained" in result.report) == processes.is_main

    run_together(2, work, tmp_path)


def test_different_weights_are_an_error(tmp_path):
    class Drifting(Toy):
        def losses(self, rows, seeds, timesteps=None):
            if self.drifts and timesteps is None:
                self.drifts = False
                with torch.no_grad():
                    next(parameter for parameter in self.layers.parameters() if parameter.requires_grad).add_(1.0)
            return super().losses(rows, seeds, timesteps)

    def work(processes) -> None:
        toy = Drifting()
        toy.drifts = processes.rank == 1
        train_or_resume(toy, Numbers(), parse_config(SETTINGS), tmp_path / "run", tmp_path / "run")

    for ended in Launch(2, work, tmp_path).ended():
        assert ended.status == 1
        assert "process 1 of 2" in ended.output
        assert "has other weights than the main one" in ended.output


def test_a_step_is_computed_in_parts_only_where_it_has_to_be(tmp_path):
    """Four processes have a row each; one that goes on alone computes whole batches, unless memory ran out before."""

    def rows_at_a_time(folder: Path) -> str:
        report = (folder / "toy" / "report.txt").read_text()
        return next(line for line in report.splitlines() if line.startswith("Memory: "))[:30]

    def begun(processes: Processes, fails: bool) -> None:
        toy = Failing(processes.rank, 1 if fails else -1, MemoryError("no room"), step=3)
        folder, config = tmp_path / str(fails), parse_config(SETTINGS)
        train_or_resume(toy, Numbers(), config, folder, folder, stop_at(7, interrupt))

    for fails, count, at_a_time in ((False, 4, 2), (True, 2, 1)):
        Launch(count, lambda processes, fails=fails: begun(processes, fails), tmp_path).ended()
        folder = tmp_path / str(fails)
        train_or_resume(Toy(), Numbers(), parse_config(SETTINGS), folder, folder)
        assert f"Memory: {at_a_time} at a time in" in rows_at_a_time(folder)
