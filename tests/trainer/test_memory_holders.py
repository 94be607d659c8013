from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from lora_crucible import memory_holders
from lora_crucible.memory_holders import largest_holder

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)


def test_the_largest_other_process_is_named(monkeypatch):
    monkeypatch.setattr(memory_holders, "WORTH_NAMING", 100_000_000)
    code = "import time; held = bytearray(300_000_000); print('ready', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "ready\n"
            holders = {one.pid: one for one in memory_holders._on_host()}
            assert holders[other.pid].size > 290_000_000
            largest = largest_holder(CPU)
            assert largest.size == max(one.size for pid, one in holders.items() if pid != memory_holders.os.getpid())
        finally:
            other.kill()


def test_small_ones_are_not_worth_naming(monkeypatch):
    monkeypatch.setattr(memory_holders, "WORTH_NAMING", 10**15)
    assert largest_holder(CPU) is None


@pytest.fixture
def card(monkeypatch):
    """A driver that answers with these rows."""
    rows = []
    monkeypatch.setattr(memory_holders.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="aaaa-1"))
    monkeypatch.setattr(
        memory_holders.subprocess, "run", lambda *args, **kwargs: SimpleNamespace(stdout="\n".join(rows))
    )
    return rows


def test_the_driver_tells_who_holds_a_card(card):
    card += [
        "GPU-aaaa-1, 12, /usr/bin/python3, 900",
        "GPU-aaaa-1, 13, C:\\Games\\Big, Bigger\\game.exe, 3000",
        "GPU-bbbb-2, 14, on_another_card, 9000",
        "GPU-aaaa-1, 15, [Not Found], [N/A]",
    ]
    assert str(largest_holder(CARD)) == "game.exe (process 13) with 3.1 GB"


def test_a_driver_that_fails_tells_nothing(card, monkeypatch):
    def fail(*args, **kwargs):
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(memory_holders.subprocess, "run", fail)
    assert largest_holder(CARD) is None
