"""Checkpoints on disk: whole or not there, whatever happens to them."""

import json
import logging
import threading

import pytest
import torch
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.lora_file import lora_layer, read_lora, to_state_dict
from lora_crucible.formats.lora_model import LoraModel
from lora_crucible.runs.checkpoint import (
    STRUCTURE,
    TENSORS,
    VERSION,
    Checkpoint,
    Checkpoints,
    read_state,
)


def lora(value: float) -> LoraModel:
    layer = lora_layer(torch.full((2, 4), value), torch.full((4, 2), value), alpha=2)
    return LoraModel(to_state_dict({"lora_unet_one": layer}, torch.float32), "one", {"ss_steps": "1"})


def checkpoint(step: int, **loras: LoraModel) -> Checkpoint:
    return Checkpoint(step, {"losses": [0.5] * step, "weights": [torch.full((64,), float(step))]}, loras)


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def write(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.write(checkpoint(step, lora=lora(step)))
        checkpoints.wait()


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_latest_is_read_back_and_older_ones_go(checkpoints):
    write(checkpoints, 1, 3, 20)
    assert names(checkpoints) == ["step_000003", "step_000020"]
    step, state = checkpoints.latest()
    assert step == 20
    assert state["losses"] == [0.5] * 20
    assert torch.equal(state["weights"][0], torch.full((64,), 20.0))


def test_the_loras_in_it_can_be_used(checkpoints):
    checkpoints.write(checkpoint(5, lora=lora(5), best=lora(3)))
    checkpoints.wait()
    folder = checkpoints.folder / "step_000005"
    for name, value in (("lora", 5.0), ("best", 3.0)):
        tensors, metadata = read_lora(folder / f"{name}.safetensors")
        assert tensors["lora_unet_one.lora_down.weight"][0, 0] == value
        assert metadata["ss_steps"] == "1"


def test_a_checkpoint_of_the_same_step_takes_the_place_of_the_old_one(checkpoints):
    write(checkpoints, 4)
    checkpoints.write(Checkpoint(4, {"losses": [9.0]}, {}))
    checkpoints.wait()
    assert checkpoints.latest() == (4, {"losses": [9.0]})


def test_nothing_there(checkpoints):
    assert checkpoints.latest() is None


@pytest.mark.parametrize("file", [TENSORS, STRUCTURE])
def test_damage_of_any_kind_is_noticed_and_the_one_before_is_used(checkpoints, caplog, file):
    write(checkpoints, 1, 2)
    path = checkpoints.folder / "step_000002" / file
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) * 3 // 4] ^= 1
    for content in (b"", whole[:10], whole[: len(whole) // 2], whole[:-1], bytes(flipped), bytes(len(whole)), b"{}"):
        path.write_bytes(content)
        caplog.clear()
        assert checkpoints.latest()[0] == 1
        assert "step_000002 cannot be resumed" in caplog.text
    path.unlink()
    assert checkpoints.latest()[0] == 1


def test_each_single_flipped_bit_of_the_state_is_noticed(checkpoints):
    write(checkpoints, 1)
    folder = checkpoints.folder / "step_000001"
    for file in (TENSORS, STRUCTURE):
        whole = (folder / file).read_bytes()
        for place in range(0, len(whole), 7):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << place % 8
            (folder / file).write_bytes(flipped)
            with pytest.raises(CrucibleError):
                read_state(folder)
        (folder / file).write_bytes(whole)
    assert read_state(folder)["losses"] == [0.5]


def test_one_of_another_version_is_not_guessed_at(checkpoints):
    write(checkpoints, 1)
    path = checkpoints.folder / "step_000001" / STRUCTURE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": VERSION + 1}))
    with pytest.raises(CrucibleError, match=f"version {VERSION + 1}, and this version of .* needs {VERSION}"):
        read_state(path.parent)


@pytest.mark.parametrize("call", ["os.fsync", "os.replace", "pathlib.Path.rename"])
def test_a_checkpoint_that_cannot_be_written_leaves_those_before(checkpoints, monkeypatch, call):
    write(checkpoints, 1, 2)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(call, fail)
        checkpoints.write(checkpoint(3, lora=lora(3)))
        with pytest.raises(CrucibleError, match=r"The checkpoint could not be saved to .*the disk is full"):
            checkpoints.wait()
    assert names(checkpoints) == ["step_000001", "step_000002"]
    assert checkpoints.latest()[0] == 2
    write(checkpoints, 4)
    assert checkpoints.latest()[0] == 4


def test_what_a_killed_process_left_is_not_taken_for_a_checkpoint(checkpoints, caplog):
    write(checkpoints, 1)
    unfinished = checkpoints.folder / ".unfinished"
    unfinished.mkdir()
    (unfinished / TENSORS).write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        assert checkpoints.latest()[0] == 1
    assert not caplog.text
    write(checkpoints, 2)
    assert names(checkpoints) == ["step_000001", "step_000002"]


def test_writing_does_not_wait_and_keeps_the_order(checkpoints):
    for step in range(1, 8):
        checkpoints.wait()
        checkpoints.write(checkpoint(step))
    checkpoints.wait()
    assert names(checkpoints) == ["step_000006", "step_000007"]


def test_by_time_or_by_steps(checkpoints, monkeypatch):
    due = []
    for step in range(1, 10):
        if checkpoints.is_due(step, 4):
            due.append(step)
            write(checkpoints, step)
    assert due == [4, 8]
    now = checkpoints._started
    monkeypatch.setattr("time.monotonic", lambda: now + 59)
    assert not checkpoints.is_due(1, None)
    monkeypatch.setattr("time.monotonic", lambda: now + 60)
    assert checkpoints.is_due(1, None)
    write(checkpoints, 1)
    assert not checkpoints.is_due(2, None)


def test_later_ones_that_the_run_did_not_go_on_from_give_way(checkpoints):
    """Else they would be kept for the latest, and the new ones deleted as the oldest."""
    write(checkpoints, 7, 8)
    again = Checkpoints(checkpoints.folder, keep=1)
    write(again, 4)
    assert names(again) == ["step_000004"]


def test_training_does_not_wait_for_the_one_before(checkpoints, monkeypatch):
    """On a slow disk the next one is written a step later."""
    go_on = threading.Event()
    monkeypatch.setattr(
        "lora_crucible.runs.checkpoint.write_state", lambda folder, state: go_on.wait() and folder.mkdir()
    )
    checkpoints.folder.mkdir()
    checkpoints.write(checkpoint(2))
    assert not checkpoints.is_due(4, 2)
    assert not checkpoints.is_due(5, 2)
    go_on.set()
    checkpoints._writing.result()
    assert checkpoints.is_due(5, 2)
    checkpoints.wait()
    checkpoints.write(checkpoint(5))
    checkpoints.wait()
    assert not checkpoints.is_due(5, 2)
    assert checkpoints.is_due(6, 2)


def test_one_that_failed_is_tried_again_when_the_next_is_due(checkpoints, monkeypatch):
    def fail(*_):
        raise CrucibleError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr("lora_crucible.runs.checkpoint.write_state", fail)
        checkpoints.write(checkpoint(2))
        with pytest.raises(CrucibleError, match="the disk is full"):
            checkpoints.wait()
    assert checkpoints.last_step is None
    assert [step for step in (2, 3, 4) if checkpoints.is_due(step, 2)] == [4]
