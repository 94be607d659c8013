from __future__ import annotations

from types import SimpleNamespace

import pytest
from lora_crucible.errors import CrucibleError
from lora_crucible.memory import storage as room
from lora_crucible.memory.storage import require_room

TRAINED = 50_000_000
"""A LoRA of 100 MB: with AdamW 16 bytes a number, so checkpoints of 800 MB and two files of 100 MB each."""


@pytest.fixture
def need(complete, tmp_path, monkeypatch):
    def required(disk: float, memory: float = 64e9, **values):
        monkeypatch.setattr(room.shutil, "disk_usage", lambda path: SimpleNamespace(free=int(disk)))
        monkeypatch.setattr(room, "free_host_memory", lambda: int(memory))
        return require_room(tmp_path, TRAINED, complete(**values))

    return required


def test_enough_room_is_said(need):
    found = need(100e9)
    assert found.warnings == ()
    assert "3.2 GB of 100.0 GB free on disk" in found.line
    assert "2.7 GB of 64.0 GB free in main memory (RAM)" in found.line


def test_too_little_for_all_checkpoints_is_a_warning(need):
    assert "take up to 3.2 GB: not all" in need(3e9).warnings[0]
    assert need(3e9, checkpoints_kept=1).warnings == ()


def test_too_little_for_one_is_an_error(need):
    with pytest.raises(CrucibleError, match=r"has 1\.1 GB free, and the LoRA with one checkpoint takes 1\.2 GB"):
        need(1.1e9)
    need(1.1e9, optimizer="adafactor")


def test_too_little_memory_of_the_host_is_a_warning(need):
    assert "2.5 GB free" in need(100e9, memory=2.5e9).warnings[0]
