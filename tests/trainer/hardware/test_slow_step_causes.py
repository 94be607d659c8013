"""Likely causes of slow steps, on a simulated computer."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch
from lora_crucible.hardware import slow_step_causes as slow_causes
from lora_crucible.hardware.nvidia import Card, Holder
from lora_crucible.hardware.slow_step_causes import likely_cause

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GB = 10**9


@pytest.fixture(autouse=True)
def computer(monkeypatch) -> SimpleNamespace:
    """A simulated computer without problems: 24 GB of GPU memory and 32 GB of main memory."""
    found = SimpleNamespace(free=6 * GB, available=16 * GB, retries=0, spills=False, holders=(), processes=[])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (found.free, 24 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 18 * GB)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {"num_alloc_retries": found.retries})
    monkeypatch.setattr(slow_causes, "_spills", lambda: found.spills)
    monkeypatch.setattr(
        slow_causes,
        "nvidia_cards",
        lambda: ([Card("0", "GPU-a", "A card", 24 * GB, found.free, "600", found.holders)], ""),
    )
    memory = lambda: SimpleNamespace(available=found.available, total=32 * GB)  # noqa: E731
    monkeypatch.setattr(psutil, "virtual_memory", memory)
    monkeypatch.setattr(psutil, "process_iter", lambda attributes: found.processes)
    monkeypatch.setattr(slow_causes, "LOOKING", 0.0)
    return found


class Program:
    def __init__(self, name: str, percent: float) -> None:
        self.pid, self.info, self._percent = -1, {"name": name}, percent

    def cpu_percent(self) -> float:
        return self._percent


def test_a_quiet_computer_leaves_it_unknown():
    assert "not known" in likely_cause(CPU)
    assert "not known" in likely_cause(CUDA)


def test_a_full_card_spills_under_windows(computer):
    computer.free, computer.spills = GB // 10, True
    text = likely_cause(CUDA)
    for fact in ("23.9 GB of 24.0 GB", "18.0 GB of them by this training", "Windows", "Sysmem Fallback", "batch_size"):
        assert fact in text
    assert "GPU" not in likely_cause(CPU)


def test_a_full_card_elsewhere_matters_when_memory_is_claimed_again_and_again(computer):
    computer.free = GB // 10
    assert "not known" in likely_cause(CUDA)
    computer.retries = 3
    assert "free and allocate memory again and again" in likely_cause(CUDA)
    assert "Windows" not in likely_cause(CUDA)


def test_programs_on_the_card_are_named_but_not_this_one(computer):
    own = Holder("python", psutil.Process().pid, 18 * GB)
    computer.holders = (own, Holder("game.exe", 77, None))
    assert "Other programs use the GPU too: game.exe." in likely_cause(CUDA)
    computer.holders = (own,)
    assert "not known" in likely_cause(CUDA)


def test_full_main_memory_is_said(computer):
    computer.available = GB // 2
    assert "Main memory (RAM) is full: only 500.0 MB of 32.0 GB" in likely_cause(CPU)


def test_busy_programs_are_named(computer, monkeypatch):
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)
    computer.processes = [Program("idle", 2), Program("browser", 90), Program("backup", 150)]
    text = likely_cause(CPU)
    assert "2.4 of 4 processor cores busy: backup (150%), browser (90%)." in text
    computer.processes = [Program("editor", 60)]
    assert "not known" in likely_cause(CPU)


def test_a_program_that_is_really_busy_is_found(tmp_path, monkeypatch):
    """On a busy machine it may get too little of a processor at first."""
    monkeypatch.undo()
    (tmp_path / "busy_program").symlink_to(sys.executable)
    busy = subprocess.Popen([tmp_path / "busy_program", "-c", "while True: pass"])
    try:
        monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [])  # the process belongs to this test
        monkeypatch.setattr(slow_causes, "BUSY", 0.01)
        assert any("busy_program (" in likely_cause(CPU) for _ in range(60))
    finally:
        busy.kill()
        busy.wait()


def test_processes_that_are_gone_are_passed_over(computer):
    gone = Program("gone", 0)
    gone.cpu_percent = lambda: (_ for _ in ()).throw(psutil.NoSuchProcess(1))
    computer.processes = [gone]
    assert "not known" in likely_cause(CPU)
