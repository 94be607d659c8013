"""Tests of the examination of cards and their memory, with a stand-in for nvidia-smi and made-up answers of torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from lora_crucible.doctor.devices import examine_devices
from lora_crucible.doctor.page import Section

CARD = "0, GPU-a, NVIDIA GeForce RTX 3090, 24576, 4096, 550.54"
TWO = "0, GPU-a, NVIDIA GeForce RTX 3090, 24576, 4096, 550.54\n1, GPU-b, NVIDIA T4, 15360, 15000, 550.54"
HELD = "GPU-a, 4242, /home/jane/games, and more/python, 18000\nGPU-b, 17, C:\\Users\\jane\\app.exe, [N/A]"
CPU_ONLY = {"cuda": None, "rocm": None, "devices": [], "reason": ""}
MEMORY = {"total": 32_000_000_000, "free": 8_000_000_000, "processes": [[9_000_000_000, "firefox", 11]]}


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that puts a stand-in for nvidia-smi on the path."""
    if os.name == "nt":
        pytest.skip("the stand-in is a shell script")
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(cards: str, processes: str = "", status: int = 0) -> None:
        (tmp_path / "cards").write_text(cards + "\n")
        (tmp_path / "processes").write_text(processes + "\n" if processes else "")
        script = tmp_path / "nvidia-smi"
        case = f'case "$1" in *gpu=*) /bin/cat {tmp_path}/cards;; *) /bin/cat {tmp_path}/processes;; esac'
        script.write_text(f"#!/bin/sh\n{case}\nexit {status}\n")
        script.chmod(0o755)

    return put


def examined(devices: dict[str, Any]) -> Section:
    return examine_devices({"torch": {"version": "2.9"}, "devices": devices, "memory": MEMORY})


def cuda(**device: Any) -> dict[str, Any]:
    known = {"device": "cuda:0", "name": "NVIDIA GeForce RTX 3090", "compute": "8.6"}
    memory = {"free": 4096 * 2**20, "total": 24576 * 2**20, "bf16": True}
    return {"cuda": "12.8", "rocm": None, "devices": [known | (device or memory)], "reason": ""}


def test_who_holds_a_cards_memory(nvidia_smi):
    nvidia_smi(TWO, HELD)
    section = examined(cuda())
    assert section.rows == [
        ("card 0", "NVIDIA GeForce RTX 3090, driver 550.54"),
        ("", "25.8 GB, 4.3 GB free"),
        ("  in use", "18.9 GB  python (pid 4242)"),
        ("  in use", "2.6 GB  unlisted: the desktop, or another container"),
        ("card 1", "NVIDIA T4, driver 550.54"),
        ("", "16.1 GB, 15.7 GB free"),
        ("  in use", "?  app.exe (pid 17)"),
        ("torch cuda:0", "NVIDIA GeForce RTX 3090, compute 8.6, 25.8 GB, 4.3 GB free, bf16"),
        ("memory", "32.0 GB, 8.0 GB free"),
        ("  in use", "9.0 GB  firefox (pid 11)"),
    ]
    (note,) = section.notes
    assert "21.5 GB of the memory of NVIDIA GeForce RTX 3090 is in use by python (pid 4242)" in note.text
    assert section.obstacles == []
    assert not any("jane" in value for _, value in section.rows)


def test_a_torch_without_cuda_beside_a_card(nvidia_smi):
    nvidia_smi(CARD)
    (obstacle,) = examined(CPU_ONLY).obstacles
    assert "NVIDIA GeForce RTX 3090" in obstacle.text
    assert "built without CUDA" in obstacle.text
    assert "https://pytorch.org" in obstacle.text


def test_a_driver_that_is_too_old_for_torch(nvidia_smi):
    nvidia_smi(CARD)
    reason = "The NVIDIA driver on your system is too old"
    (obstacle,) = examined(CPU_ONLY | {"cuda": "13.0", "reason": reason}).obstacles
    for words in (reason, "550.54", "CUDA 13.0", "CUDA_VISIBLE_DEVICES"):
        assert words in obstacle.text


def test_a_card_that_torch_has_no_code_for(nvidia_smi):
    nvidia_smi(CARD)
    section = examined(cuda(error="CUDA error: no kernel image is available"))
    (obstacle,) = section.obstacles
    assert "cannot compute on it (CUDA error: no kernel image is available)" in obstacle.text


def test_memory_that_the_host_shares(nvidia_smi):
    nvidia_smi("0, GPU-a, NVIDIA GB10, [N/A], [N/A], 580.95")
    section = examined(cuda())
    assert section.rows[0] == ("card 0", "NVIDIA GB10, driver 580.95")
    assert section.rows[1][0] == "torch cuda:0"
    assert section.notes == []


def test_a_failing_nvidia_smi_is_quoted(nvidia_smi):
    nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", status=9)
    texts = [note.text for note in examined(CPU_ONLY).notes]
    assert any("couldn't communicate with the NVIDIA driver" in text for text in texts)


def test_no_card_is_no_obstacle(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    section = examined(CPU_ONLY)
    assert section.obstacles == []
    assert ("torch", "CPU only") in section.rows
    assert "runs on the CPU" in section.notes[0].text


def test_devices_that_hang(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (obstacle,) = examined({"error": "hangs: not finished within 300 s"}).obstacles
    assert "hangs" in obstacle.text


def test_neither_torch_nor_psutil(monkeypatch, tmp_path: Path):
    """Missing packages are no obstacle here, because they are reported in the section about packages."""
    monkeypatch.setenv("PATH", str(tmp_path))
    absent = {"error": "ModuleNotFoundError", "absent": "torch"}
    section = examine_devices({"devices": absent, "memory": absent})
    assert section.obstacles == []
    assert [name for name, _ in section.rows] == ["memory"]
