"""The same training is not done twice; any other is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lora_crucible.config import DataSettings, parse_config
from lora_crucible.data.dataset import Dataset, load_dataset
from lora_crucible.last_runs import MOST, LastRuns
from lora_crucible.run import RunResult
from lora_crucible.run_files import RunFiles
from PIL import Image


class Model:
    """Something that a run was made on."""


CONFIG = parse_config({"max_train_steps": 3})
MODELS = Model(), Model()


def result(folder: Path, name: str = "mine") -> RunResult:
    files = RunFiles(name, folder / f"{name}.safetensors", folder)
    files.lora.write_bytes(b"")
    return RunResult(files)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    (folder / "a.txt").write_text("a cat")
    return load_dataset(DataSettings(train_data_dir=str(folder)))


def test_a_run_is_known_by_content(tmp_path: Path, dataset: Dataset) -> None:
    runs, made = LastRuns(), result(tmp_path)
    runs.add(MODELS, dataset, CONFIG, "mine", made)
    (dataset.folder / "a.txt").write_text("a  cat\n")
    assert runs.find(MODELS, load_dataset(DataSettings(train_data_dir=str(dataset.folder))), CONFIG, "mine") is made


def test_anything_else_is_another_run(tmp_path: Path, dataset: Dataset) -> None:
    runs = LastRuns()
    runs.add(MODELS, dataset, CONFIG, "mine", result(tmp_path))
    other = replace(dataset, images=(replace(dataset.images[0], captions=("a dog",)),))
    assert runs.find(MODELS, other, CONFIG, "mine") is None
    assert runs.find(MODELS, dataset, parse_config({"max_train_steps": 4}), "mine") is None
    assert runs.find(MODELS, dataset, CONFIG, "other") is None
    assert runs.find((MODELS[0], Model()), dataset, CONFIG, "mine") is None


def test_a_lora_that_was_deleted_is_trained_again(tmp_path: Path, dataset: Dataset) -> None:
    runs, made = LastRuns(), result(tmp_path)
    runs.add(MODELS, dataset, CONFIG, "mine", made)
    made.files.lora.unlink()
    assert runs.find(MODELS, dataset, CONFIG, "mine") is None


def test_models_are_not_kept_alive_and_runs_are_forgotten(tmp_path: Path, dataset: Dataset) -> None:
    runs = LastRuns()
    runs.add((Model(),), dataset, CONFIG, "mine", result(tmp_path))
    assert runs.find((Model(),), dataset, CONFIG, "mine") is None
    runs.add(MODELS[:1], dataset, CONFIG, "mine", result(tmp_path))
    for number in range(MOST):
        runs.add(MODELS[:1], dataset, CONFIG, f"{number}", result(tmp_path, f"{number}"))
    assert runs.find(MODELS[:1], dataset, CONFIG, "mine") is None
