"""Disks that are full or may not be written to: the training is what counts, and nothing good is lost."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from disks import SmallDisk
from lora_crucible.cli.main import main
from lora_crucible.config import parse_config
from lora_crucible.errors import CrucibleError
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.models.diffusers.model import DiffusersBaseModel
from lora_crucible.training import resume as resuming
from lora_crucible.training.result import RunResult
from processes import assert_whole
from toy import Numbers, Toy

pytestmark = pytest.mark.usefixtures("checkpoints_in_time")

STEPS = 6
QUICK = {
    "max_train_steps": STEPS,
    "batch_size": 2,
    "lora_rank": 4,
    "sample_steps": 1,
    "sample_every_n_steps": 2,
    "save_steps": 1,
    "measure": "never",
    "save_precision": "fp32",
}


@pytest.fixture
def disk(tmp_path) -> Iterator[SmallDisk]:
    try:
        mounted = SmallDisk(tmp_path / "disk", megabytes=16)
    except OSError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    yield mounted
    mounted.unmount()


@pytest.fixture(scope="module")
def demo_model() -> DiffusersBaseModel:
    """The demo model, whose checkpoints have a size that fills a disk."""
    return DiffusersBaseModel("demo")


@pytest.fixture(scope="module")
def whole(demo_model, dataset, tmp_path_factory) -> RunResult:
    """A run of the demo model without faults."""
    return train(demo_model, dataset, tmp_path_factory.mktemp("whole"))


def train(base_model, dataset, folder: Path, hooks: Callbacks | None = None, steps: int = STEPS, **values) -> RunResult:
    config = parse_config({**QUICK, "max_train_steps": steps, **values})
    return resuming.train_or_resume(base_model, dataset, config, folder, folder, hooks)


def assert_same(one: RunResult, other: RunResult) -> None:
    first, second = read_lora(one.files.lora)[0], read_lora(other.files.lora)[0]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert one.losses == other.losses


def at_steps(**calls) -> Callbacks:
    """Calls something after steps, by number (`step_3=...`)."""

    def stepped(report, steps) -> None:
        calls.get(f"step_{report.step}", lambda: None)()

    return Callbacks(stepped=stepped)


def logged(result: RunResult) -> list[int]:
    return [json.loads(line)["step"] for line in (result.files.folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("leave", [0, 8192, 300_000], ids=["nothing left", "a little", "enough for half a checkpoint"])
def test_full_until_the_end_it_goes_on_from_the_last_checkpoint(demo_model, dataset, disk, whole, leave):
    with pytest.raises(CrucibleError, match=r"The LoRA could not be saved to .*lora.safetensors .*the disk is full"):
        train(demo_model, dataset, disk.folder, at_steps(step_3=lambda: disk.fill(leave)))
    assert not list(disk.folder.glob("*.safetensors"))
    assert_whole(disk.folder)
    kept = sorted(path.name for path in (disk.folder / "lora" / "checkpoints").iterdir())
    disk.free()
    steps: list[int] = []
    result = train(demo_model, dataset, disk.folder, Callbacks(stepped=lambda report, _: steps.append(report.step)))
    assert steps == list(range(int(kept[-1].removeprefix("step_")) + 1, STEPS + 1))
    assert kept[-1] >= "step_000002"
    assert_same(result, whole)
    assert logged(result) == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_full_for_a_while_the_run_ends_well_and_says_what_is_missing(demo_model, dataset, disk, tmp_path, caplog):
    """So long that the log needs another block on the disk."""
    whole = train(demo_model, dataset, tmp_path / "whole", steps=40)
    result = train(demo_model, dataset, disk.folder, at_steps(step_3=disk.fill, step_38=disk.free), steps=40)
    assert_same(result, whole)
    steps = logged(result)
    assert {1, 2, 3, 39, 40} <= set(steps)
    assert 37 not in steps
    for what in ("The log", "The samples"):
        for text in (caplog.text, result.report):
            assert text.count(f"{what} could not be written, and the run continued without it.") == 1
    assert result.report.count("The checkpoint could not be saved") == 1
    assert (result.files.folder / "loss.png").stat().st_size > 1000
    assert [len(one) for one in result.samples] == [len(one) for one in whole.samples]
    assert not list(result.files.folder.rglob(".crucible-*"))
    assert_whole(disk.folder)
    again = train(demo_model, dataset, disk.folder, steps=40)
    assert again.losses == [whole.losses[step - 1] for step in steps]  # from its files alone


@pytest.mark.slow
def test_full_when_the_lora_is_there_the_rest_is_left_out(demo_model, dataset, disk, whole):
    """Report, last sample, plot and record: the LoRA is the result."""

    def sampled(step, steps, picture) -> None:
        if step == STEPS:
            disk.fill()

    result = train(demo_model, dataset, disk.folder, Callbacks(sampled=sampled))
    assert_same(result, whole)
    assert "The report could not be written" not in result.report  # it was, before the last sample
    disk.free()
    assert_same(train(demo_model, dataset, disk.folder), whole)
    assert [path.name for path in disk.folder.glob("*.safetensors")] == ["lora.safetensors"]


@pytest.mark.slow
def test_full_while_encoding_the_cache_stays_in_memory(demo_model, dataset, disk, whole, caplog):
    def preparing(done, total, what) -> None:
        if done == 9:
            disk.fill()
        if done == 11:
            disk.free()

    result = train(demo_model, dataset, disk.folder, Callbacks(preparing=preparing))
    assert_same(result, whole)
    assert caplog.text.count("Encoded examples cannot be saved to") == 1
    assert not list((disk.folder / ".cache").glob("??/*.tmp"))


@pytest.mark.slow
def test_full_from_the_start_nothing_is_begun(demo_model, dataset, disk, whole):
    disk.fill()
    with pytest.raises(CrucibleError, match=f"could not be saved to {disk.folder}: the disk is full"):
        train(demo_model, dataset, disk.folder)
    disk.free()
    result = train(demo_model, dataset, disk.folder)
    assert result.files.name == "lora"
    assert_same(result, whole)


@pytest.mark.slow
def test_full_when_an_interrupted_run_is_to_go_on(demo_model, dataset, disk, whole):
    class Stop(BaseException):
        pass

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        train(demo_model, dataset, disk.folder, at_steps(step_3=stop))
    before = {path: path.read_bytes() for path in disk.folder.rglob("*") if path.is_file()}
    disk.fill()
    with pytest.raises(CrucibleError, match="the disk is full"):
        train(demo_model, dataset, disk.folder)
    for path, content in before.items():
        assert path.read_bytes() == content
    disk.free()
    result = train(demo_model, dataset, disk.folder)
    assert "Resumed after step 3 of lora" in result.report
    assert_same(result, whole)


@pytest.mark.usefixtures("no_curves")
def test_read_only_it_is_said_before_the_first_step(disk, tmp_path):
    toy, numbers = Toy(), Numbers()
    whole = train(toy, numbers, tmp_path / "whole", target_modules="linear")
    disk.read_only()
    with pytest.raises(CrucibleError, match=f"could not be saved to {disk.folder}: writing there is not permitted"):
        train(toy, numbers, disk.folder, target_modules="linear")
    disk.read_only(False)
    result = train(toy, numbers, disk.folder, target_modules="linear")
    assert result.files.name == "lora"
    assert_same(result, whole)
    disk.read_only()
    assert_same(train(toy, numbers, disk.folder, target_modules="linear"), whole)  # what is finished can be used


def test_read_only_on_the_command_line(disk, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(f"base_model: demo\ntrain_data_dir: demo\noutput_dir: {disk.folder}/out\nmax_train_steps: 2\n")
    disk.read_only()
    assert main(["train", str(config)]) == 6
    said = capsys.readouterr().err
    assert f"error: The LoRA or another file of its run could not be saved to {disk.folder}/out" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("place", ["out", "out/deeper"])
def test_a_file_in_the_folders_place(tmp_path, place):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(CrucibleError, match=f"{place}: there is a file where a folder is needed"):
        train(Toy(), Numbers(), tmp_path / place, target_modules="linear")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.usefixtures("no_curves")
def test_a_run_goes_on_without_pictures_that_were_damaged(base_model, dataset, tmp_path, caplog):
    """A disk may lose what it reported as written."""
    whole = train(base_model, dataset, tmp_path / "whole")
    folder = tmp_path / "parts"

    class Stop(BaseException):
        pass

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        train(base_model, dataset, folder, at_steps(step_5=stop))
    pictures = sorted((folder / "lora" / "samples").iterdir())
    pictures[0].write_bytes(pictures[0].read_bytes()[:100])
    pictures[1].write_bytes(b"")
    log = folder / "lora" / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text(lines[0] + lines[1].replace('"loss"', '"lo"') + "\x00\x00{\n" + lines[2] + lines[3][:20])
    with caplog.at_level(logging.WARNING):
        result = train(base_model, dataset, folder)
    assert_same(result, whole)
    assert logged(result) == [1, 3, 6]
