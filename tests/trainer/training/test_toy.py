"""Base models without pictures, of numbers and of texts, through everything that a run does."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lora_crucible.config import parse_config
from lora_crucible.config.yaml_file import read_config
from lora_crucible.errors import CrucibleError
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.formats.lora_file import read_lora
from lora_crucible.memory.step_memory import NothingFits
from lora_crucible.models.memory_controls import MemoryControls
from lora_crucible.training.resume import train_or_resume
from toy import Numbers, Toy
from toys import TOYS

SETTINGS = {
    "max_train_steps": 40,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "target_modules": "linear",
    "lora_dropout": 0.2,
    "learning_rate": 0.05,
    "sample_prompts": "one\ntwo",
    "sample_every_n_steps": 10,
    "validate_every_n_steps": 10,
    "save_steps": 5,
    "save_precision": "fp32",
    "output_name": "toy",
}
SCRIPT = """
import json, sys, time
sys.path[:0] = json.loads(sys.argv[2])
import conftest
from lora_crucible.config import parse_config
from lora_crucible.events.callbacks import Callbacks
from lora_crucible.memory.step_memory import NothingFits
from lora_crucible.models.memory_controls import MemoryControls
from lora_crucible.training.resume import train_or_resume
from pathlib import Path
from toys import TOYS

def stepped(report, steps):
    print(report.step, flush=True)
    time.sleep(0.05)

folder = Path(sys.argv[1])
base_model, dataset = TOYS[sys.argv[4]]
train_or_resume(base_model(), dataset(), parse_config(json.loads(sys.argv[3])), folder, folder,
Callbacks(stepped=stepped))
"""


OF_TEXTS = {
    "task_type": "text-generation",
    "measure": "always",
    "max_new_tokens": 8,
    "regularization_rows": True,
    "sample_prompts": "",
}


def settings_of(kind: str) -> dict:
    return SETTINGS | (OF_TEXTS if kind == "texts" else {})


def train(folder: Path, callbacks: Callbacks | None = None, kind: str = "numbers", **values):
    base_model, dataset = TOYS[kind]
    config = parse_config(settings_of(kind) | values)
    return train_or_resume(base_model(), dataset(), config, folder, folder, callbacks)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict:
    """An undisturbed run of each kind."""
    return {kind: train(tmp_path_factory.mktemp(kind), kind=kind) for kind in TOYS}


@pytest.fixture
def undisturbed(runs):
    return runs["numbers"]


def test_it_learns_its_numbers_and_is_judged_without_pictures(undisturbed):
    assert undisturbed.losses[-1] < undisturbed.losses[0] / 2
    assert undisturbed.verdict.word in ("good", "too little")
    assert undisturbed.rounds[-1].held_out < undisturbed.rounds[0].held_out
    for fact in ("40 of 40 steps", "Dataset: numbers, 4 examples", "Validation on 2 examples", "Verdict"):
        assert fact in undisturbed.report
    for word in ("picture", "px", "pixel", "validation images", "training images"):
        assert word not in undisturbed.report.lower()
    assert not (undisturbed.files.folder / "measures.png").exists()


def test_its_samples_are_texts(undisturbed):
    first, last = undisturbed.samples[0], undisturbed.samples[-1]
    assert len(undisturbed.samples) == 5
    assert first == ("one: 0.000000", "two: 0.000000")
    assert last != first
    files = sorted((undisturbed.files.folder / "samples").glob("step_*"))
    assert [file.read_text() for file in files[-2:]] == list(last)
    assert {file.suffix for file in files} == {".txt"}


def test_its_samples_are_shown_below_their_prompts(undisturbed):
    lines = undisturbed.sample_texts().splitlines()
    assert lines[:5] == ["Before the first step:", "  one", "    one: 0.000000", "  two", "    two: 0.000000"]
    assert lines[-5:-2] == ["After step 40:", "  one", f"    {undisturbed.samples[-1][0]}"]


def test_a_finished_run_is_returned_with_its_texts(undisturbed):
    again = train(undisturbed.files.folder.parent)
    assert "Nothing was trained" in again.report
    assert again.samples == undisturbed.samples
    assert again.sample_texts() == undisturbed.sample_texts()
    assert again.losses == undisturbed.losses


def test_the_samples_reach_who_follows_the_run(tmp_path):
    seen = []
    train(tmp_path, Callbacks(sampled=lambda step, steps, samples: seen.append((step, samples))), max_train_steps=20)
    assert [step for step, _ in seen] == [0, 10, 20]
    assert seen[0][1] == ("one: 0.000000", "two: 0.000000")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", TOYS)
def test_killed_and_resumed_it_gives_the_same_lora(runs, tmp_path, seed, kind):
    undisturbed = runs[kind]
    tests = Path(__file__).parents[2]
    paths = json.dumps([str(tests), str(tests / "trainer")])
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), paths, json.dumps(settings_of(kind)), kind]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 12 + 8 * seed:
                time.sleep(random.Random(seed).uniform(0, 0.05))
                process.send_signal(signal.SIGKILL)
                break
    result = train(tmp_path, kind=kind)
    assert "Resumed after step" in result.report
    one, _ = read_lora(undisturbed.files.lora)
    other, _ = read_lora(result.files.lora)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert result.losses == undisturbed.losses


def test_a_lower_resolution_that_changes_nothing_is_not_tried_for_ever(tmp_path, monkeypatch):
    """A dataset without images is the same at any resolution."""
    monkeypatch.setattr(MemoryControls, "is_out_of_memory", lambda self, error: isinstance(error, MemoryError))

    def no_memory(*_) -> None:
        raise MemoryError

    monkeypatch.setattr(Toy, "losses", no_memory)
    with pytest.raises(NothingFits):
        train(tmp_path, resolution=512, allow_lower_resolution=True)


def test_texts_are_trained_measured_and_judged(runs):
    run = runs["texts"]
    assert run.rounds[-1].held_out < run.rounds[0].held_out / 2
    for fact in (
        "Dataset: sayings, 8 rows",
        "Validation on 4 rows: ",
        "(perplexity ",
        "Effect: predictions for answers of the dataset moved by ",
        " of 10 answers to unrelated prompts stayed the same (first 8 tokens)",
        "Endings: ",
        "Variety: ",
        "Regularization: 26 answers of the base model",
        "Verdict",
    ):
        assert fact in run.report
    for word in ("image", "picture", "px", "pixel", "noise", "resolution", "caption"):
        assert word not in run.report.split("Chosen automatically")[0].lower(), word
    sheet = (run.files.folder / "measures.md").read_text()
    assert "## Prompts of the dataset" in sheet
    assert sheet.count("### ") == 4 + 10


def test_the_report_shows_answers_before_and_after(runs):
    run = runs["texts"]
    assert run.samples[0][:2] == ("AA", "BB")
    lines = run.report.splitlines()
    start = lines.index("Sample answers before the first step and after step 40 (all are in samples/):")
    assert lines[start + 1 : start + 4] == ["  tell A", "    before: AA", f"    after:  {run.samples[-1][0]}"]


def test_the_log_of_texts_has_no_ranges_of_noise(runs):
    line = json.loads((runs["texts"].files.folder / "log.jsonl").read_text().splitlines()[-1])
    assert line["errors"].keys() == {"all"}
    assert len(line["rows"]) == 4


def test_the_file_of_a_text_run_says_nothing_of_images(runs):
    metadata = runs["texts"].lora.metadata
    assert metadata["crucible.rows"] == "8"
    assert metadata["crucible.regularization_rows"] == "26"
    assert json.loads(metadata["crucible.validation"])["rows"] == 4
    assert metadata["modelspec.description"] == "Trained with LoRA Crucible: 8 rows, 40 steps, rank 8."
    for word in ("image", "resolution", "caption", "tag_", "latents", "noise", "unet"):
        assert not [key for key in metadata if word in key], word


def test_the_config_of_a_text_run_is_read_again(runs):
    config = read_config(str(runs["texts"].files.folder / "config.yaml"))
    assert config.regularization_rows
    assert config.max_new_tokens == 8


def test_other_prompts_are_not_mixed_with_earlier_samples(tmp_path):
    def stop(report, steps) -> None:
        if report.step == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Callbacks(stepped=stop), kind="texts")
    result = train(tmp_path, kind="texts", sample_prompts="say E")
    assert "Resumed after step" in result.report
    assert all(len(samples) == 1 for samples in result.samples)
    assert "tell A" not in result.report.split("Measured in")[0]


class ToyWithAnotherForm(Toy):
    """A toy whose LoRAs have a further form, as those of language models have PEFT's."""

    def save_beside(self, folder, adapters, config):
        if config.save_precision == "fp16":
            raise CrucibleError("The further form could not be written.")
        folder.mkdir(exist_ok=True)
        (folder / "layers").write_text(f"{len(adapters)}")
        return f"For other programs: {folder}"


def test_a_further_form_is_written_beside_the_lora_and_its_failure_is_only_told(tmp_path):
    for precision, told in (("fp32", "For other programs: "), ("fp16", "The further form could not be written.")):
        folder = tmp_path / precision
        config = parse_config({**SETTINGS, "save_precision": precision, "max_train_steps": 4})
        result = train_or_resume(ToyWithAnotherForm(), Numbers(), config, folder, folder)
        assert told in result.report
        assert result.files.lora.is_file()
        assert result.files.adapter.exists() == (precision == "fp32")
