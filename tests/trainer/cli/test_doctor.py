"""Tests of the command `python -m trainer doctor` as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lora_crucible.cli import doctor as command
from lora_crucible.cli.main import main
from lora_crucible.doctor import comfyui
from lora_crucible.doctor.packages import loading_steps
from lora_crucible.doctor.requirements import REQUIRED, STANDALONE

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Return a folder with this checkout that is not inside a ComfyUI."""
    folder = tmp_path / "pack"
    folder.mkdir()
    for name in ("trainer", "requirements.txt"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return environment variables without a ComfyUI and without a graphics driver."""
    (tmp_path / "empty").mkdir()
    kept = {name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"}
    return kept | {"PATH": str(tmp_path / "empty"), "CUDA_VISIBLE_DEVICES": ""}


def test_a_computer_that_is_ready(pack: Path, tmp_path: Path, environment: dict[str, str]):
    run = subprocess.run(
        [sys.executable, "-m", "trainer", "doctor", "--output_dir", str(tmp_path / "output")],
        cwd=pack,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith("\nThis computer is ready for training.\n")
    for name in ("Python", "torch", "peft", "diffusers", "transformers", "safetensors", "pydantic", "bitsandbytes"):
        assert f"\n  {name} " in run.stdout
    assert "cannot be loaded" not in run.stdout
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "output").exists()


def test_a_python_with_nothing_but_the_standard_library(pack: Path, tmp_path: Path, environment: dict[str, str]):
    run = subprocess.run(
        [sys.executable, "-I", "-S", str(pack / "trainer"), "doctor"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    text = " ".join(run.stdout.split("Fix this before training")[1].split())
    missing = text.split("LoRA Crucible needs ")[1].split(", which are not installed")[0].split(", ")
    assert {requirement.package for requirement in (*REQUIRED, *STANDALONE)} == set(missing)
    assert text.count("-m pip install") == 1
    assert f'"{pack}[standalone]"' in text
    assert "2. " not in text


def test_without_packages_the_other_commands_name_them(pack: Path, environment: dict[str, str]):
    run = subprocess.run(
        [sys.executable, "-I", "-S", str(pack / "trainer"), "demo"], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert "pydantic, pyyaml, safetensors" in run.stderr
    assert f'"{pack / "trainer"}" doctor' in run.stderr


def test_packages_are_looked_for_in_comfyuis_own_python(tmp_path: Path, monkeypatch, capsys):
    folder = tmp_path / "ComfyUI"
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    for file in (python, folder / "main.py"):
        file.write_text("")
    monkeypatch.setenv("COMFYUI_PATH", str(folder))
    broken = {"error": "OSError: damaged", "absent": ""}
    sound = {step.name: {"version": "99.0"} for step in loading_steps()}
    monkeypatch.setattr(command, "probe", lambda steps: sound | {"peft": broken})
    monkeypatch.setattr(comfyui.sys, "prefix", str(tmp_path))
    assert main(["doctor"]) == 1
    obstacles = capsys.readouterr().out.split("Fix this before training")[1]
    assert "--force-reinstall" not in obstacles
    assert f'"{python}" "' in obstacles


def test_a_terminal_that_cannot_show_a_path(pack: Path, tmp_path: Path, environment: dict[str, str]):
    run = subprocess.run(
        [sys.executable, "-S", str(pack / "trainer"), "doctor", "--output_dir", str(tmp_path / "图片")],
        env=environment | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert run.returncode == 1, run.stderr
    assert rf"{tmp_path}/\u56fe\u7247".encode() in run.stdout
