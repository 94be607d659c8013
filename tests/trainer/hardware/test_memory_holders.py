from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import torch
from lora_crucible.hardware import memory_holders
from lora_crucible.hardware.memory_holders import largest_holder
from lora_crucible.hardware.nvidia import Card, Holder

MB = 10**6
CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)


def test_the_largest_other_process_is_named(monkeypatch):
    monkeypatch.setattr(memory_holders, "WORTH_NAMING", 100_000_000)
    code = "import time; held = bytearray(300_000_000); print('ready', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "ready\n"
            holders = {one.pid: one for one in memory_holders._on_host()}
            monkeypatch.setattr(memory_holders, "_on_host", holders.values)  # other processes grow and end meanwhile
            assert holders[other.pid].size > 290_000_000
            largest = max((one for one in holders.values() if one.pid != os.getpid()), key=lambda one: one.size)
            assert f"{largest.name} (process {largest.pid})" in largest_holder(CPU)
        finally:
            other.kill()


def test_small_ones_are_not_worth_naming(monkeypatch):
    monkeypatch.setattr(memory_holders, "WORTH_NAMING", 10**15)
    assert largest_holder(CPU) == ""


def test_of_a_card_only_its_own_holders_count(monkeypatch):
    held = (Holder("python3", 12, 900 * MB), Holder("game.exe", 13, 3000 * MB), Holder("shy.exe", 14, None))
    cards = [
        Card("0", "GPU-aaaa-1", "A card", 24000 * MB, 20000 * MB, "600", held),
        Card("1", "GPU-bbbb-2", "Another", 24000 * MB, 20000 * MB, "600", (Holder("more", 15, 9000 * MB),)),
    ]
    monkeypatch.setattr(memory_holders, "nvidia_cards", lambda: (cards, ""))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="aaaa-1"))
    assert largest_holder(CARD) == "game.exe (process 13) with 3.0 GB"
