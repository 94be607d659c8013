"""Tests of the examination of folders for results, which tries to write to them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from lora_crucible.data.cache import cache_folder
from lora_crucible.doctor import folders
from lora_crucible.doctor.folders import examine_folders, result_folders
from lora_crucible.doctor.page import path_text


def test_folders_that_are_not_there_yet_are_tried_and_not_made(tmp_path: Path):
    section = examine_folders(result_folders(str(tmp_path / "deep" / "output"), None))
    assert section.obstacles == []
    assert dict(section.rows)["output"] == path_text(tmp_path / "deep" / "output")
    assert all("writable" in value for name, value in section.rows if not name)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder(tmp_path: Path):
    folder = tmp_path / "output"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):  # root may write to every folder but the kernel's
        folder = Path("/sys")
    section = examine_folders(result_folders(str(folder), None))
    (obstacle,) = section.obstacles
    assert f"{folder} cannot be written to (" in obstacle.text
    assert "another output folder" in obstacle.text


def test_a_file_where_the_folder_should_be(tmp_path: Path):
    (tmp_path / "output").write_text("")
    (obstacle,) = examine_folders(result_folders(str(tmp_path / "output"), None)).obstacles
    assert str(tmp_path / "output") in obstacle.text
    assert (tmp_path / "output").read_text() == ""


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = open

    class Full:
        def __init__(self, *arguments):
            self.file = real(*arguments)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, _):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "open", Full, raising=False)
    (obstacle,) = examine_folders({"output": tmp_path}).obstacles
    assert "No space left on device" in obstacle.text
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2 * 10**8))
    (obstacle,) = examine_folders(result_folders(str(tmp_path), None)).obstacles
    assert "only 0.2 GB free" in obstacle.text


def test_folders_are_those_that_a_training_writes_to(tmp_path: Path):
    standalone = result_folders(str(tmp_path), None)
    assert standalone["cache"] == cache_folder(tmp_path)
    inside = result_folders(None, tmp_path)
    assert inside["LoRAs"] == tmp_path / "output" / "loras"
    assert inside["cache"] == cache_folder(inside["runs"]) == tmp_path / "output" / "crucible" / ".cache"
    assert result_folders("~/mine", tmp_path)["LoRAs"] == Path.home() / "mine" / "loras"
