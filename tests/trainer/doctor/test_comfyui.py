"""Tests of the examination of a ComfyUI by its files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from lora_crucible.doctor import comfyui as module
from lora_crucible.doctor.comfyui import OLDEST, examine_comfyui, find_comfyui, python_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    folder = tmp_path / "ComfyUI"
    (folder / "custom_nodes" / "lora-crucible" / "trainer").mkdir(parents=True)
    (folder / "main.py").write_text("raise SystemExit('imported')")
    (folder / "comfyui_version.py").write_text('# comment\n__version__ = "0.33.0"\nraise SystemExit("imported")')
    return folder


def test_found_around_the_pack_or_by_its_variable(comfyui: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(module, "FOLDER", tmp_path / "elsewhere" / "trainer")
    assert find_comfyui() is None
    monkeypatch.setattr(module, "FOLDER", comfyui / "custom_nodes" / "lora-crucible" / "trainer")
    assert find_comfyui() == comfyui
    monkeypatch.setattr(module, "FOLDER", tmp_path / "elsewhere" / "trainer")
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui))
    assert find_comfyui() == comfyui
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "nowhere"))
    assert find_comfyui() is None
    assert str(tmp_path / "nowhere") in examine_comfyui(None).notes[0].text


def test_version_and_registered_folders(comfyui: Path):
    rows = dict(examine_comfyui(comfyui).rows)
    assert rows["version"] == "0.33.0"
    assert rows["extra_model_paths.yaml"].startswith("none")
    paths = comfyui / "extra_model_paths.yaml"
    paths.write_text("comfyui:\n    loras: models/loras\n#    datasets: datasets/\n")
    assert "no `datasets`" in dict(examine_comfyui(comfyui).rows)["extra_model_paths.yaml"]
    paths.write_text("mine:\n    base_path: /x\n    datasets: |\n        pictures\n")
    assert "registers" in dict(examine_comfyui(comfyui).rows)["extra_model_paths.yaml"]


def test_a_version_that_is_too_old(comfyui: Path):
    assert examine_comfyui(comfyui).obstacles == []
    (comfyui / "comfyui_version.py").write_text('__version__ = "0.9.1"\n')
    (obstacle,) = examine_comfyui(comfyui).obstacles
    assert "is version 0.9.1, but training needs 0.33 or newer" in obstacle.text
    (comfyui / "comfyui_version.py").unlink()
    assert ("version", "unknown") in examine_comfyui(comfyui).rows


def test_the_oldest_version_is_the_one_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["comfy"]["requires-comfyui"] == f">={OLDEST}"


@pytest.mark.parametrize("python", [".venv/bin/python", "venv/Scripts/python.exe", "../python_embeded/python.exe"])
def test_another_python_than_comfyuis_own(comfyui: Path, python: str, monkeypatch: pytest.MonkeyPatch):
    assert python_of(comfyui) is None
    file = comfyui / python
    file.parent.mkdir(parents=True)
    file.write_text("")
    section = examine_comfyui(comfyui)
    (note,) = section.notes
    assert os.path.normpath(file) in note.command
    assert note.command.endswith(" doctor")
    environment = file.parent if "embeded" in python else file.parent.parent
    monkeypatch.setattr(sys, "prefix", str(environment))
    assert python_of(comfyui) is None
    assert examine_comfyui(comfyui).notes == []
