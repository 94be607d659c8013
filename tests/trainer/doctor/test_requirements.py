"""Tests that missing and outdated packages are named, with one command that installs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from lora_crucible.doctor import requirements
from lora_crucible.doctor.requirements import (
    REQUIRED,
    STANDALONE,
    doctor_command,
    is_older,
    require_packages,
)
from lora_crucible.errors import CrucibleError

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def has_versions(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    version = requirements.version
    monkeypatch.setattr(requirements, "version", lambda name: versions.get(name) or version(name))


def test_what_is_required_is_what_pip_installs():
    assert [one.specifier for one in REQUIRED] == PROJECT["dependencies"]
    everywhere = [one for one in PROJECT["optional-dependencies"]["standalone"] if "python_version" not in one]
    assert [one.specifier for one in STANDALONE] == everywhere


def test_a_package_that_is_too_old_is_named_like_one_that_is_missing(monkeypatch: pytest.MonkeyPatch):
    require_packages(STANDALONE)
    find_spec = requirements.find_spec
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name == "peft" else find_spec(name))
    has_versions(monkeypatch, diffusers="0.9.0")
    with pytest.raises(CrucibleError) as caught:
        require_packages()
    text = str(caught.value)
    for part in (
        "needs peft, which is not installed; ",
        "diffusers 0.33 or newer, but 0.9.0 is installed in this Python",
    ):
        assert part in text
    assert text.count("-m pip install") == 1
    assert f'-m pip install -r "{ROOT / "requirements.txt"}"' in text
    assert doctor_command() in text


def test_an_installation_by_pip_has_no_file_of_requirements(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(requirements, "FOLDER", tmp_path / "lora_crucible")
    has_versions(monkeypatch, peft="0.1")
    with pytest.raises(CrucibleError, match=r'-m pip install "accelerate>=1.0" .* "peft>=0.17" .* "torch>=2.5"'):
        require_packages(STANDALONE)


@pytest.mark.parametrize(
    ("version", "oldest", "older"),
    [
        ("2.10.1", "2.9", False),
        ("2.9", "2.10", True),
        ("2.5.0a0+git1234", "2.5", False),
        ("2.5", "2.5.0", False),
        ("0.4.2", "0.4.3", True),
        ("nightly", "2.5", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, oldest: str, older: bool):
    assert is_older(version, oldest) == older


def test_the_folder_itself_can_be_started_from_anywhere(tmp_path: Path):
    """ComfyUI's portable Python ignores the current folder, like Python's option -I."""
    run = subprocess.run(
        [sys.executable, "-I", str(ROOT / "trainer"), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0
    assert "doctor" in run.stdout
