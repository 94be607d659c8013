"""Runs that are interrupted and resumed, and runs that are recognized. What does not depend on the model is tested with
the toy."""

from __future__ import annotations

import json
import operator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from disks import cut, flip_a_bit
from filelock import FileLock
from lora_crucible.config import DataSettings, parse_config
from lora_crucible.data.images.load import load_dataset
from lora_crucible.errors import CrucibleError
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.runs.log import read_log
from lora_crucible.training.result import RunResult
from lora_crucible.training.resume import train_or_resume
from toy import Numbers, Toy
from toy_language import Sayings, ToyLanguage
from toys import TOYS

pytestmark = pytest.mark.usefixtures("no_curves", "checkpoints_in_time")

STEPS = 8
QUICK = {
    "max_train_steps": STEPS,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "sample_steps": 1,
    "sample_prompts": "crux",
    "sample_every_n_steps": 3,
    "save_precision": "fp32",
    "measure": "never",
    "validate_every_n_steps": 3,
    "early_stopping_patience": 0,
    "lr_warmup_steps": 3,
    "target_modules": "linear",
}


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    return Numbers(range(1, 6), held_out=(6.0,))


@pytest.fixture(scope="module")
def dataset():
    """Few images: what is tested does not depend on how many."""
    dataset = load_dataset(DataSettings(train_data_dir="demo", validation_percent=20))
    return replace(dataset, images=dataset.images[:5], validation=dataset.validation[:1])


class Stop(BaseException):
    pass


class Steps:
    """Counts the steps that are really done; stops after one of them."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.done: list[int] = []
        self._stop_after = stop_after

    def __call__(self, report, steps) -> None:
        self.done.append(report.step)
        if report.step == self._stop_after:
            raise Stop


def train(base_model, dataset, folder: Path, steps: Steps | None = None, retrain: bool = False, **values) -> RunResult:
    config = parse_config({**QUICK, **values})
    hooks = Callbacks(stepped=steps or Steps())
    return train_or_resume(base_model, dataset, config, folder, folder, hooks, retrain=retrain)


def stopped(base_model, dataset, folder: Path, after: int, **values) -> None:
    with pytest.raises(Stop):
        train(base_model, dataset, folder, Steps(after), **values)


def lora(path: Path) -> dict[str, torch.Tensor]:
    return read_lora(path)[0]


def assert_same(one: Path, other: Path) -> None:
    first, second = lora(one), lora(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def assert_same_in_two_parts(base_model, dataset, tmp_path: Path, **values) -> None:
    whole = train(base_model, dataset, tmp_path / "whole", **values)
    steps = Steps()
    stopped(base_model, dataset, tmp_path / "parts", 5, **values)
    parts = train(base_model, dataset, tmp_path / "parts", steps, **values)
    assert steps.done == [6, 7, 8]
    assert_same(whole.files.lora, parts.files.lora)
    assert parts.losses == whole.losses
    assert parts.rounds == whole.rounds
    logs = [
        [
            {name: line[name] for name in ("step", "loss", f"{dataset.unit}s", "learning_rates", "errors")}
            for line in lines
        ]
        for files in (whole.files, parts.files)
        for lines in [[json.loads(line) for line in (files.folder / "log.jsonl").read_text().splitlines()]]
    ]
    assert logs[0] == logs[1]
    assert [len(one) for one in parts.samples] == [len(one) for one in whole.samples]
    equal = torch.equal if isinstance(whole.samples[-1], torch.Tensor) else operator.eq
    assert equal(parts.samples[-1], whole.samples[-1])
    assert parts.files.lora == tmp_path / "parts" / "lora.safetensors"
    assert "Resumed after step 5 of lora" in parts.report


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ema_decay": 0.9, "lora_dropout": 0.2, "lr_scheduler": "cosine_with_restarts"},
        {"optimizer": "adafactor"},
        {"optimizer": "lion"},
        {"optimizer": "prodigy", "learning_rate": 1.0},
        {"optimizer": "schedule_free_adamw"},
        {"algorithm": "lokr", "downweight_hard_images": True},
    ],
    ids=lambda values: "_".join(map(str, values.values())) or "defaults",
)
@pytest.mark.parametrize("kind", TOYS)
def test_a_run_in_two_parts_equals_one_in_one(tmp_path, kind, values):
    base_model, dataset = TOYS[kind]
    assert_same_in_two_parts(base_model(), dataset(), tmp_path, **values)


def test_a_run_with_regularization_rows_in_two_parts_equals_one_in_one(tmp_path):
    assert_same_in_two_parts(
        ToyLanguage(),
        Sayings(),
        tmp_path,
        task_type="text-generation",
        regularization_rows=True,
        max_new_tokens=8,
        sample_steps=20,
    )


def test_a_run_of_model_and_text_encoder_in_two_parts_equals_one_in_one(base_model, dataset, tmp_path):
    values = {"train_text_encoder": True, "algorithm": "dora", "loraplus_ratio": 4}
    assert_same_in_two_parts(base_model, dataset, tmp_path, **values)


def test_what_stays_hard_is_known_after_a_resume(toy, tmp_path):
    """A number that does not belong is given half its weight from about step 30 on."""
    numbers = Numbers((1.0, 1.1, 1.2, 1.3, 9.0))
    settings = {"max_train_steps": 40, "batch_size": 3, "gradient_accumulation_steps": 1, "learning_rate": 0.05}
    whole = train(toy, numbers, tmp_path / "whole", downweight_hard_images=True, **settings)
    stopped(toy, numbers, tmp_path / "parts", 35, downweight_hard_images=True, **settings)
    parts = train(toy, numbers, tmp_path / "parts", downweight_hard_images=True, **settings)
    assert "Hard to learn: 9.0" in whole.report
    assert "Hard to learn: 9.0" in parts.report
    assert parts.losses == whole.losses
    assert parts.losses != train(toy, numbers, tmp_path / "plain", **settings).losses


@pytest.mark.parametrize("after", [1, 3, 4, 8])
def test_stopped_anywhere(toy, numbers, tmp_path, after):
    """Before a sample that is due, at one, between two, after the last step."""
    whole = train(toy, numbers, tmp_path / "whole")
    stopped(toy, numbers, tmp_path / "parts", after)
    parts = train(toy, numbers, tmp_path / "parts")
    assert_same(whole.files.lora, parts.files.lora)
    assert parts.rounds == whole.rounds
    assert len(parts.samples) == len(whole.samples)


def test_stopped_again_and_again(toy, numbers, tmp_path):
    whole = train(toy, numbers, tmp_path / "whole")
    for after in (2, 4, 5):
        stopped(toy, numbers, tmp_path / "parts", after)
    parts = train(toy, numbers, tmp_path / "parts")
    assert_same(whole.files.lora, parts.files.lora)
    assert sorted(path.name for path in (tmp_path / "parts").glob("*.safetensors")) == ["lora.safetensors"]


def test_a_finished_run_is_returned_at_once(base_model, dataset, tmp_path):
    first, steps = train(base_model, dataset, tmp_path), Steps()
    again = train(base_model, dataset, tmp_path, steps)
    assert steps.done == []
    assert again.files == first.files
    assert again.lora.keys() == first.lora.keys()
    assert all(torch.equal(again.lora[key], first.lora[key]) for key in first.lora)
    assert again.lora.metadata["ss_steps"] == "8"
    assert again.losses == first.losses
    assert [one.shape for one in again.samples] == [one.shape for one in first.samples]
    assert "Nothing was trained" in again.report
    assert "retrain" in again.report
    assert first.report in again.report


def test_retrain_trains_anew_beside_it(toy, numbers, tmp_path):
    first, steps = train(toy, numbers, tmp_path), Steps()
    again = train(toy, numbers, tmp_path, steps, retrain=True)
    assert len(steps.done) == STEPS
    assert (first.files.name, again.files.name) == ("lora", "lora_2")
    assert_same(first.files.lora, again.files.lora)


def test_another_name_is_another_run(toy, numbers, tmp_path):
    train(toy, numbers, tmp_path)
    steps = Steps()
    assert train(toy, numbers, tmp_path, steps, output_name="other").files.name == "other"
    assert len(steps.done) == STEPS


def test_a_name_is_a_file_name_and_not_a_path(toy, numbers, tmp_path):
    """ComfyUI's node has a field of its own for it, which no config has checked."""
    config = parse_config(QUICK).model_copy(update={"output_name": "../lora"})
    with pytest.raises(CrucibleError, match=r"output_name '\.\./lora' cannot be used"):
        train_or_resume(toy, numbers, config, tmp_path, tmp_path)
    train(toy, numbers, tmp_path, output_name="mine")
    typed = config.model_copy(update={"output_name": "mine.safetensors"})
    assert "Nothing was trained" in train_or_resume(toy, numbers, typed, tmp_path, tmp_path).report


def test_a_lora_that_was_deleted_is_made_from_the_last_checkpoint(toy, numbers, tmp_path):
    first, steps = train(toy, numbers, tmp_path), Steps()
    kept = lora(first.files.lora)
    first.files.lora.unlink()
    again = train(toy, numbers, tmp_path, steps)
    assert steps.done == []
    made = lora(again.files.lora)
    assert all(torch.equal(made[key], kept[key]) for key in kept)


def test_a_file_that_somebody_put_there_stays(toy, numbers, tmp_path):
    stopped(toy, numbers, tmp_path, 3)
    foreign = tmp_path / "lora.safetensors"
    foreign.write_bytes(b"somebody else's")
    result = train(toy, numbers, tmp_path)
    assert foreign.read_bytes() == b"somebody else's"
    assert result.files.name == "lora_2"
    assert len(result.losses) == STEPS
    assert len((result.files.folder / "log.jsonl").read_text().splitlines()) == STEPS


def test_a_name_that_another_folder_of_loras_has(toy, numbers, tmp_path):
    """Programs would find the other file first."""
    config = parse_config(QUICK)
    result = train_or_resume(
        toy, numbers, config, tmp_path, tmp_path, is_listed=lambda name: name == "lora.safetensors"
    )
    assert result.files.name == "lora_2"


@pytest.mark.parametrize(
    "changed",
    [{"max_train_steps": 10}, {"sample_every_n_steps": 2}, {"save_steps": 1}, {"purpose": "concept"}],
)
def test_changes_that_a_run_can_go_on_with(toy, numbers, tmp_path, changed):
    fixed = {"lora_rank": 8, "lora_alpha": 8, "learning_rate": 1e-3}
    stopped(toy, numbers, tmp_path, 5, **fixed)
    steps = Steps()
    result = train(toy, numbers, tmp_path, steps, **{**fixed, **changed})
    assert steps.done[0] == 6
    assert len(result.losses) == changed.get("max_train_steps", STEPS)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lora_rank": 2}, "lora_rank was 8 and is now 2"),
        ({"seed": 7}, "seed was 42 and is now 7"),
        ({"optimizer": "adafactor"}, "optimizer was adamw and is now adafactor"),
    ],
)
def test_changes_that_start_anew_and_say_why(toy, numbers, tmp_path, changed, said):
    stopped(toy, numbers, tmp_path, 5, lora_rank=8)
    steps = Steps()
    result = train(toy, numbers, tmp_path, steps, **{"lora_rank": 8, **changed})
    assert steps.done[0] == 1
    assert result.files.name == "lora_2"
    assert f"Started over instead of resuming lora: {said}" in result.report.replace("\n", " ")


def test_other_captions_start_anew(base_model, dataset, tmp_path):
    stopped(base_model, dataset, tmp_path, 5)
    first, *others = dataset.images
    changed = replace(dataset, images=(replace(first, captions=("something else",)), *others))
    steps = Steps()
    result = train(base_model, changed, tmp_path, steps)
    assert steps.done[0] == 1
    assert "the examples or the settings of the dataset are different" in result.report


def test_more_steps_for_a_finished_run(toy, numbers, tmp_path):
    first, steps = train(toy, numbers, tmp_path), Steps()
    before = first.files.lora.read_bytes()
    longer = train(toy, numbers, tmp_path, steps, max_train_steps=10)
    assert steps.done == [9, 10]
    assert longer.files.name == "lora_2"
    assert longer.losses[:STEPS] == first.losses
    assert first.files.lora.read_bytes() == before
    assert len((longer.files.folder / "log.jsonl").read_text().splitlines()) == 10
    steps = Steps()
    assert train(toy, numbers, tmp_path, steps, max_train_steps=10).losses == longer.losses
    assert steps.done == []


def test_fewer_steps_start_anew(toy, numbers, tmp_path):
    train(toy, numbers, tmp_path)
    steps = Steps()
    train(toy, numbers, tmp_path, steps, max_train_steps=5)
    assert steps.done == [1, 2, 3, 4, 5]


def test_a_finished_run_keeps_no_checkpoint_when_none_is_wanted(toy, numbers, tmp_path):
    result = train(toy, numbers, tmp_path, checkpoints_kept=0, save_steps=2)
    assert not result.files.checkpoints.exists()
    kept = train(toy, numbers, tmp_path, save_steps=2, output_name="other")
    assert [path.name for path in sorted(kept.files.checkpoints.iterdir())] == ["step_000008"]


def test_without_a_whole_checkpoint_the_run_starts_again_in_its_folder(toy, numbers, tmp_path):
    whole = train(toy, numbers, tmp_path / "whole")
    stopped(toy, numbers, tmp_path / "parts", 5)
    for path in (tmp_path / "parts" / "lora" / "checkpoints").glob("*/state.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    steps = Steps()
    parts = train(toy, numbers, tmp_path / "parts", steps)
    assert steps.done == list(range(1, STEPS + 1))
    assert_same(whole.files.lora, parts.files.lora)
    assert len((parts.files.folder / "log.jsonl").read_text().splitlines()) == STEPS


@pytest.mark.parametrize("damage", [flip_a_bit, cut])
@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("spoiled", [1, 2, 3], ids=["latest", "two", "all"])
def test_damaged_checkpoints_are_passed_over(toy, numbers, tmp_path, caplog, damage, file, spoiled):
    """They are named; the run resumes from the one before them, and the result is the same."""
    whole = train(toy, numbers, tmp_path / "whole")
    frequent = {"save_steps": 1, "checkpoints_kept": 3}
    stopped(toy, numbers, tmp_path / "parts", 6, **frequent)
    latest = sorted((tmp_path / "parts" / "lora" / "checkpoints").iterdir(), reverse=True)
    assert [path.name for path in latest] == ["step_000006", "step_000005", "step_000004"]
    for checkpoint in latest[:spoiled]:
        damage(checkpoint / file, 0.6)
    steps = Steps()
    parts = train(toy, numbers, tmp_path / "parts", steps, **frequent)
    for checkpoint in latest[:spoiled]:
        assert f"{checkpoint} cannot be resumed" in caplog.text
    step = 0 if spoiled == 3 else 6 - spoiled
    assert steps.done == list(range(step + 1, STEPS + 1))
    assert (f"Resumed after step {step} of lora" in parts.report) == bool(step)
    assert_same(whole.files.lora, parts.files.lora)
    assert parts.losses == whole.losses


def test_a_run_that_another_process_is_at(toy, numbers, tmp_path):
    stopped(toy, numbers, tmp_path, 5)
    with (
        FileLock(tmp_path / ".locks" / "lora.lock"),
        pytest.raises(CrucibleError, match="lora is being trained by another process"),
    ):
        train(toy, numbers, tmp_path)
    assert len(train(toy, numbers, tmp_path).losses) == STEPS


def test_a_checkpoint_that_the_user_names(toy, numbers, tmp_path):
    whole = train(toy, numbers, tmp_path / "whole", save_steps=2, checkpoints_kept=9)
    stopped(toy, numbers, tmp_path / "parts", 7, save_steps=2, checkpoints_kept=9)
    folder = tmp_path / "parts" / "lora" / "checkpoints" / "step_000004"
    with pytest.raises(CrucibleError, match=r"cannot be resumed from .*step_000004 .*: seed was 42 and is now 3"):
        train(toy, numbers, tmp_path / "parts", resume_from_checkpoint=str(folder), seed=3)
    with pytest.raises(CrucibleError, match="nowhere cannot be resumed"):
        train(toy, numbers, tmp_path / "parts", resume_from_checkpoint=str(tmp_path / "nowhere"))
    steps = Steps()
    parts = train(toy, numbers, tmp_path / "parts", steps, resume_from_checkpoint=str(folder))
    assert steps.done == [5, 6, 7, 8]
    assert_same(whole.files.lora, parts.files.lora)


def test_a_full_disk_for_checkpoints_does_not_end_the_run(toy, numbers, tmp_path, monkeypatch):
    def full(*_):
        raise CrucibleError("The checkpoint could not be saved: the disk is full.")

    monkeypatch.setattr("lora_crucible.runs.checkpoint.write_state", full)
    result = train(toy, numbers, tmp_path, save_steps=2)
    assert len(result.losses) == STEPS
    assert result.report.count("the disk is full") == 1
    assert result.files.lora.exists()


def test_killed_before_its_first_checkpoint_a_longer_run_still_begins_where_the_shorter_one_ended(
    toy, numbers, tmp_path, monkeypatch
):
    train(toy, numbers, tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr("lora_crucible.runs.checkpoint.Checkpoints.write", lambda *_: None)
        stopped(toy, numbers, tmp_path, 9, max_train_steps=12)
    (tmp_path / "lora_2.safetensors").unlink()
    steps = Steps()
    longer = train(toy, numbers, tmp_path, steps, max_train_steps=12)
    assert steps.done == [9, 10, 11, 12]
    assert longer.files.name == "lora_2"
    assert [line["step"] for line in read_log(longer.files.folder / "log.jsonl")] == list(range(1, 13))


def test_killed_with_nothing_but_its_name_the_name_is_free(toy, numbers, tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / ".crucible-run.json-01234567.tmp").touch()
    assert train(toy, numbers, tmp_path).files.name == "lora"


def test_an_earlier_checkpoint_that_the_user_names_is_the_last_from_then_on(toy, numbers, tmp_path):
    stopped(toy, numbers, tmp_path, 7, save_steps=2, checkpoints_kept=2)
    folder = tmp_path / "lora" / "checkpoints" / "step_000006"
    chosen = {"save_steps": 99, "checkpoints_kept": 1, "resume_from_checkpoint": str(folder)}
    with pytest.raises(Stop):
        train(toy, numbers, tmp_path, Steps(7), **chosen, lr_warmup_steps=1)
    assert [path.name for path in folder.parent.iterdir()] == ["step_000007"]
    steps = Steps()
    train(toy, numbers, tmp_path, steps, lr_warmup_steps=1)
    assert steps.done == [8]
