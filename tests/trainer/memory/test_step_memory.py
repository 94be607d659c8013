"""Whole runs that run out of memory and go on. What does not depend on the model is tested with the toy."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lora_crucible.config import DataSettings, parse_config
from lora_crucible.data.images.load import load_dataset
from lora_crucible.errors import CrucibleError
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.memory import storage as room
from lora_crucible.memory.step_memory import StepMemory
from lora_crucible.training.result import RunResult
from lora_crucible.training.resume import train_or_resume
from out_of_memory import Faults
from toy import Numbers, Toy
from toy_language import Sayings, ToyLanguage, row

pytestmark = pytest.mark.usefixtures("no_curves")

STEPS = 4
QUICK = {
    "max_train_steps": STEPS,
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "sample_steps": 1,
    "sample_prompts": "crux",
    "sample_every_n_steps": 99,
    "save_precision": "fp32",
    "measure": "never",
    "lr_warmup_steps": 1,
    "mixed_precision": "fp32",
    "target_modules": "linear",
}


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    return Numbers(range(1, 7))


@pytest.fixture(scope="module")
def dataset():
    whole = load_dataset(DataSettings(train_data_dir="demo", validation_percent=0))
    return replace(whole, images=whole.images[:6])


@pytest.fixture
def faults(toy, monkeypatch) -> Faults:
    return Faults(toy, monkeypatch)


VALIDATED = Numbers(range(1, 7), held_out=(7.0, 8.0))


def train(base_model, dataset, folder: Path, hooks: Callbacks | None = None, **values) -> RunResult:
    return train_or_resume(base_model, dataset, parse_config({**QUICK, **values}), folder, folder, hooks)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A function that returns the result of a run that has all the memory it wants."""
    made = {}

    def result(base_model, dataset, **values) -> RunResult:
        key = base_model.name, str(values)
        if key not in made:
            made[key] = train(base_model, dataset, tmp_path_factory.mktemp("undisturbed"), **values)
        return made[key]

    return result


def distance(one: RunResult, other: RunResult) -> float:
    """Largest difference of any number in two LoRA files."""
    first, second = read_lora(one.files.lora)[0], read_lora(other.files.lora)[0]
    assert first.keys() == second.keys()
    return max(float((first[key] - second[key]).abs().max()) for key in first)


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("phase", ["forward", "backward", "optimizer"])
def test_a_step_that_ran_out_of_memory_is_done_again(toy, numbers, tmp_path, undisturbed, faults, phase, step, caplog):
    expected = undisturbed(toy, numbers)
    faults.at_step(phase, step)
    result = train(toy, numbers, tmp_path)
    assert faults.happened == [phase]
    assert result.losses == pytest.approx(expected.losses, rel=1e-5)
    assert distance(result, expected) < 1e-5
    assert faults.passes[-2:] == [2, 2]  # the last step, in two parts
    said = rf"Step {step} ran out of memory at .*B: continued with micro-batches of 2 instead of 4"
    assert re.search(said, result.report)
    assert re.search(said, caplog.text)


@pytest.mark.parametrize("phase", ["forward", "backward", "optimizer"])
def test_texts_of_unequal_length_give_the_same_lora_in_smaller_parts(tmp_path, undisturbed, monkeypatch, phase):
    """Each token counts the same, however the rows of a step are split."""
    texts = ToyLanguage()
    sayings = Sayings(rows=tuple(row(f"row {n}", f"say {x}", x * (1 + 2 * n)) for n, x in enumerate("ABCDEF")))
    expected = undisturbed(texts, sayings, early_stopping_patience=0)
    faults = Faults(texts, monkeypatch)
    faults.at_step(phase, 3)
    result = train(texts, sayings, tmp_path, early_stopping_patience=0)
    assert faults.happened == [phase]
    assert result.losses == pytest.approx(expected.losses, rel=1e-5)
    assert distance(result, expected) < 1e-5


def test_texts_that_do_not_fit_are_to_be_shorter(tmp_path, monkeypatch):
    texts = ToyLanguage()
    Faults(texts, monkeypatch).fits = lambda rows: False
    with pytest.raises(CrucibleError, match=r"lower lora_rank \(it is \d+\) or a lower max_seq_length needs less"):
        train(texts, Sayings(), tmp_path)


@pytest.mark.parametrize("phase", ["forward", "backward", "optimizer"])
def test_the_lora_is_the_same_to_the_bit_where_only_checkpointing_changed(
    base_model, dataset, tmp_path, undisturbed, monkeypatch, phase
):
    settings = {"batch_size": 1, "gradient_accumulation_steps": 4, "lora_dropout": 0.1}
    expected = undisturbed(base_model, dataset, **settings)
    faults = Faults(base_model, monkeypatch)
    faults.at_step(phase, 3, row=2)
    result = train(base_model, dataset, tmp_path, **settings)
    assert faults.happened == [phase]
    assert faults.plans[-1] == (1, True, 0)
    assert result.losses == expected.losses
    assert distance(result, expected) == 0
    assert "continued with gradient checkpointing" in result.report


def test_an_optimizer_may_be_interrupted_again_and_again(toy, numbers, tmp_path, undisturbed, monkeypatch):
    settings = {"batch_size": 2, "gradient_accumulation_steps": 2, "save_steps": 3, "max_train_steps": 5}
    expected = undisturbed(toy, numbers, **settings)
    faults = Faults(toy, monkeypatch, most_offloads=1)
    for step in (2, 3, 5):
        faults.at_step("optimizer", step)
    result = train(toy, numbers, tmp_path, **settings)
    assert faults.happened == ["optimizer"] * 3
    assert result.losses == pytest.approx(expected.losses, rel=1e-5)
    assert distance(result, expected) < 1e-5
    steps = [json.loads(line)["step"] for line in (result.files.folder / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]


def test_gradients_scaled_for_fp16_survive_it(toy, numbers, tmp_path, faults, monkeypatch):
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled=True: scaler(device, enabled=True))
    expected = train(toy, numbers, tmp_path / "expected")
    faults.at_step("optimizer", 2)  # the gradients are unscaled by then
    result = train(toy, numbers, tmp_path / "result")
    assert faults.happened == ["optimizer"]
    assert distance(result, expected) < 1e-5


def test_what_costs_least_time_is_tried_first(toy, numbers, tmp_path, monkeypatch):
    faults = Faults(toy, monkeypatch, most_offloads=2)
    faults.fits = lambda rows: faults.plans[-1] == (1, True, 2)
    result = train(toy, numbers, tmp_path)
    assert list(dict.fromkeys(faults.plans)) == [(1, False, 0), (1, True, 0), (1, True, 1), (1, True, 2)]
    changes = re.findall(r"ran out of memory at .*: continued with (.*)", result.report)
    offloading = "more of the base model in main memory (RAM)"
    assert changes == [
        "micro-batches of 2 instead of 4",
        "micro-batches of 1 instead of 2",
        "gradient checkpointing",
        offloading,
        offloading,
    ]
    assert "Memory: 1 at a time in batches of 4, gradient checkpointing on" in result.report


def test_a_batch_of_three_is_not_cut_more_than_it_must(toy, numbers, tmp_path, faults):
    faults.fits = lambda rows: len(rows) <= 2
    train(toy, numbers, tmp_path, batch_size=3)
    assert faults.passes[-2:] == [2, 1]


def test_when_nothing_is_left_the_state_is_kept_and_the_error_says_what_would_fit(
    base_model, dataset, tmp_path, undisturbed, monkeypatch
):
    expected = undisturbed(base_model, dataset, batch_size=1)
    with monkeypatch.context() as patched:
        faults = Faults(base_model, patched)

        def cannot_go_on(report, steps):
            if report.step == 2:
                faults.fits = lambda rows: False

        with pytest.raises(CrucibleError) as error:
            train(base_model, dataset, tmp_path, Callbacks(stepped=cannot_go_on), batch_size=1)
    message = str(error.value)
    assert re.match(r"Step 3 ran out of memory at \d+\.\d .B, and nothing is left to try", message)
    assert "The smallest plan that was tried: 1 at a time, gradient checkpointing on" in message
    assert "lower lora_rank (it is 8) or a lower resolution (it is 64" in message
    assert "The training so far is saved" in message
    went_on = train(base_model, dataset, tmp_path, batch_size=1)
    assert "Resumed after step 2" in went_on.report
    assert distance(went_on, expected) == 0


def test_fixed_memory_is_never_planned_anew(toy, numbers, tmp_path, faults):
    faults.at_step("forward", 2)
    with pytest.raises(CrucibleError, match=r"Step 2 ran out of memory at .*memory is fixed.*3 at a time.*to auto"):
        train(toy, numbers, tmp_path, memory="fixed", batch_size=3)
    assert faults.passes == [1, 3, 3, 3]


def test_another_error_goes_on_as_it_is(toy, numbers, tmp_path, faults):
    def fits(rows):
        raise ValueError("not about memory")

    faults.fits = fits
    with pytest.raises(ValueError, match="not about memory"):
        train(toy, numbers, tmp_path)
    assert faults.passes == [1]


def test_a_run_that_goes_on_keeps_its_plan(toy, numbers, tmp_path, undisturbed, monkeypatch):
    def stop(report, steps):
        if report.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        Faults(toy, patched).at_step("forward", 1)
        whole = train(toy, numbers, tmp_path / "whole")
    with monkeypatch.context() as patched:
        Faults(toy, patched).at_step("forward", 1)
        with pytest.raises(KeyboardInterrupt):
            train(toy, numbers, tmp_path / "parts", Callbacks(stepped=stop))
    faults = Faults(toy, monkeypatch)
    parts = train(toy, numbers, tmp_path / "parts")
    assert faults.passes[-4:] == [2] * 4
    assert distance(parts, whole) == 0
    assert "Step 1 ran out of memory" in parts.report


def test_the_memory_setting_may_change_when_a_run_goes_on(toy, numbers, tmp_path):
    def stop(report, steps):
        if report.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(toy, numbers, tmp_path, Callbacks(stepped=stop))
    assert "Resumed after step 2" in train(toy, numbers, tmp_path, memory="500 GB").report


def test_the_measured_step_changes_nothing(toy, numbers, tmp_path, undisturbed, monkeypatch):
    expected = undisturbed(toy, numbers, lora_dropout=0.2)
    monkeypatch.setattr(StepMemory, "probe", lambda self: None)
    result = train(toy, numbers, tmp_path, lora_dropout=0.2)
    assert result.losses == expected.losses
    assert distance(result, expected) == 0


def test_a_plan_is_made_before_the_first_step_and_compared_afterwards(toy, numbers, tmp_path, monkeypatch, caplog):
    """On a clock that goes on by half a second for each row that is computed."""
    clock, losses = [0.0], toy.losses

    def timed(rows, seeds, *timesteps):
        clock[0] += 0.5 * len(rows)
        return losses(rows, seeds, *timesteps)

    monkeypatch.setattr(toy, "losses", timed)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    caplog.set_level("INFO")
    result = train(toy, numbers, tmp_path)
    lines = [line for line in caplog.text.splitlines() if "memory.step_memory" in line]
    assert "Memory: 4 at a time in batches of 4, gradient checkpointing off" in lines[0]
    assert "expected: at most" in lines[1]
    expected = re.search(r"expected: at most (\S+) .B of (\S+) .B, (\S+) s per step, (\d+) s in total", result.report)
    measured = re.search(r"measured: at most (\S+) .B, (\S+) s per step", result.report)
    assert float(measured[1]) > 0
    assert (expected[3], expected[4], measured[2]) == ("1.5", "6", "1.5")  # 6 numbers in 2 batches: 3 at a time


def test_what_does_not_fit_into_the_limit_is_found_before_the_first_step(toy, numbers, tmp_path):
    with pytest.raises(CrucibleError, match=r"A step would take \S+ .B of 10\.0 MB, and nothing is left to try"):
        train(toy, numbers, tmp_path, memory="0.01 GB")
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".")] == []


def test_the_plan_keeps_within_a_limit(toy, numbers, tmp_path, faults, monkeypatch):
    """By a meter that sees 1 GB for each row of the last pass."""
    meter = "lora_crucible.memory.step_memory.PeakMeter"
    monkeypatch.setattr(f"{meter}.peak", property(lambda self: int(1e9 * faults.passes[-1])))
    monkeypatch.setattr(f"{meter}.now", property(lambda self: 0))
    result = train(toy, numbers, tmp_path, memory="2.5 GB")
    assert faults.passes[-2:] == [2, 2]
    assert "expected: at most 2.0 GB of 2.5 GB" in result.report
    assert re.search("Measured before the first step, a step would take 4.0 GB of 2.5 GB: .* 2 instead", result.report)
    assert 4 not in faults.passes  # which the system might have answered by killing the process


def test_a_tenth_of_the_hosts_memory_is_left_to_other_programs(toy, numbers, tmp_path, faults, monkeypatch):
    """By a meter that sees 1 GB for each row, where 4.2 GB are available: four rows would fit into all of it."""
    meter = "lora_crucible.memory.step_memory.PeakMeter"
    monkeypatch.setattr(f"{meter}.peak", property(lambda self: int(1e9 * faults.passes[-1])))
    monkeypatch.setattr(f"{meter}.now", property(lambda self: 0))
    monkeypatch.setattr(toy.memory, "available", lambda device: 4_200_000_000)
    result = train(toy, numbers, tmp_path)
    assert faults.passes[-2:] == [2, 2]
    assert "expected: at most 2.0 GB of 3.8 GB" in result.report
    assert 4 not in faults.passes


def test_what_is_reserved_is_left_to_other_programs(toy, numbers, tmp_path, faults, monkeypatch):
    """By a meter that sees 1 GB for each row, where 6 GB are available."""
    meter = "lora_crucible.memory.step_memory.PeakMeter"
    monkeypatch.setattr(f"{meter}.peak", property(lambda self: int(1e9 * faults.passes[-1])))
    monkeypatch.setattr(f"{meter}.now", property(lambda self: 0))
    monkeypatch.setattr(toy.memory, "available", lambda device: 6_000_000_000)
    rooms = []
    monkeypatch.setattr(toy.memory, "make_room", lambda room, limit: rooms.append(limit))
    starts = []
    result = train(toy, numbers, tmp_path, Callbacks(planned=starts.append), reserve_memory="3.5")
    assert faults.passes[-2:] == [2, 2]
    assert 4 not in faults.passes
    said = "expected: at most 2.0 GB of 2.5 GB (reserve_memory leaves 3.5 GB free)"
    assert said in result.report
    assert any(said in line for line in starts[0].memory)
    assert set(rooms) == {2_500_000_000}  # a model that can be partly offloaded keeps to it, too


def test_more_than_there_is_cannot_be_reserved(toy, numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(toy.memory, "available", lambda device: 6_000_000_000)
    with pytest.raises(CrucibleError, match=r"reserve_memory is 8 GB, but only 6.0 GB are there") as raised:
        train(toy, numbers, tmp_path, reserve_memory=8)
    assert raised.value.kind == "memory"


def test_samples_that_run_out_of_memory_are_drawn_again(toy, numbers, tmp_path, undisturbed, faults):
    expected = undisturbed(toy, numbers)
    faults.next_times("draw")
    result = train(toy, numbers, tmp_path)
    assert faults.happened == ["draw"]
    assert result.samples == expected.samples
    assert distance(result, expected) == 0


def test_a_run_ends_well_without_samples(base_model, dataset, tmp_path, undisturbed, monkeypatch):
    faults = Faults(base_model, monkeypatch)
    faults.next_times("draw", times=99)
    result = train(base_model, dataset, tmp_path, measure="always")
    assert result.samples == []
    assert "There was not enough memory to draw samples after step 4" in result.report
    assert distance(result, undisturbed(base_model, dataset)) == 0


def test_validation_goes_on_with_fewer_rows(toy, tmp_path, monkeypatch):
    expected = train(toy, VALIDATED, tmp_path / "expected")
    faults = Faults(toy, monkeypatch)
    faults.next_times("validation", times=2)
    result = train(toy, VALIDATED, tmp_path / "result")
    assert faults.happened == ["validation"] * 2
    errors = [(one.training, one.held_out) for one in result.rounds]
    assert errors == [pytest.approx((one.training, one.held_out), rel=1e-4) for one in expected.rounds]
    assert distance(result, expected) == 0


def test_a_run_ends_well_without_validation(toy, tmp_path, faults, caplog):
    faults.next_times("validation", times=9999)
    result = train(toy, VALIDATED, tmp_path)
    assert len(result.losses) == STEPS
    assert result.rounds == []
    assert "There was not enough memory to measure the error after step 4" in caplog.text


def test_a_checkpoint_that_finds_no_memory_is_left_out(toy, numbers, tmp_path, undisturbed, faults):
    faults.next_times("portable", times=2)
    result = train(toy, numbers, tmp_path, save_steps=2)
    assert "There was not enough memory to write a checkpoint after step 2" in result.report
    assert distance(result, undisturbed(toy, numbers)) == 0


def test_encoding_is_tried_twice(toy, numbers, tmp_path, undisturbed, faults):
    faults.next_times("cache_inputs")
    assert distance(train(toy, numbers, tmp_path), undisturbed(toy, numbers)) == 0


def test_too_little_memory_to_encode_is_an_error_in_words(toy, numbers, tmp_path, faults):
    faults.next_times("cache_inputs", times=2)
    with pytest.raises(CrucibleError, match=r"There is not enough memory for toy .* Close other programs"):
        train(toy, numbers, tmp_path)


def test_a_disk_without_room_is_found_before_the_first_step(toy, numbers, tmp_path, monkeypatch, faults):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(CrucibleError, match=r"has 100 bytes free, and the LoRA with one checkpoint takes"):
        train(toy, numbers, tmp_path)
    assert faults.passes == []
