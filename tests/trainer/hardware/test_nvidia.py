"""Tests of the description of NVIDIA cards, with a stand-in for nvidia-smi."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest
from lora_crucible.hardware import nvidia
from lora_crucible.hardware.nvidia import Holder, nvidia_cards

CARD = "0, GPU-a, A card, 24576, 20000, 600.1"


@pytest.fixture
def driver(monkeypatch):
    """Return the rows of cards and of processes with which the stand-in answers."""
    answers = SimpleNamespace(cards=[CARD], processes=[])
    monkeypatch.setattr(nvidia.shutil, "which", lambda name: f"/usr/bin/{name}")

    def run(command, **kwargs):
        rows = answers.cards if command[1].startswith("--query-gpu") else answers.processes
        return SimpleNamespace(stdout="\n".join(rows))

    monkeypatch.setattr(nvidia.subprocess, "run", run)
    return answers


def test_each_card_has_its_own_holders(driver):
    driver.cards.append("1, GPU-b, Another, 8192, 8000, 600.1")
    driver.processes += [
        "GPU-a, 12, /usr/bin/python3, 900",
        "GPU-a, 13, C:\\Games\\Big, Bigger\\game.exe, 3000",
        "GPU-b, 14, other, 90",
    ]
    (first, second), trouble = nvidia_cards()
    assert trouble == ""
    assert first.holders == (Holder("python3", 12, 900 * 2**20), Holder("game.exe", 13, 3000 * 2**20))
    assert [one.pid for one in second.holders] == [14]
    assert (first.total, first.free) == (24576 * 2**20, 20000 * 2**20)


def test_windows_tells_no_sizes(driver):
    driver.processes.append("GPU-a, 12, python.exe, [N/A]")
    (card,), _ = nvidia_cards()
    assert card.holders == (Holder("python.exe", 12, None),)


def test_a_driver_that_fails_says_why(driver, monkeypatch):
    def fail(*args, **kwargs):
        raise subprocess.CalledProcessError(9, "nvidia-smi", "NVIDIA-SMI has failed\nmore")

    monkeypatch.setattr(nvidia.subprocess, "run", fail)
    assert nvidia_cards() == ([], "NVIDIA-SMI has failed")


def test_without_a_driver_there_are_none(monkeypatch):
    monkeypatch.setattr(nvidia.shutil, "which", lambda name: None)
    assert nvidia_cards() == ([], "")
