"""Which other program holds the memory that a training wants."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import PureWindowsPath

import psutil
import torch

from .whole_files import size_text

WORTH_NAMING = 500_000_000
"""Bytes from which on closing a program helps."""


@dataclass(frozen=True)
class Holder:
    """Another process; `size` in bytes."""

    name: str
    pid: int
    size: int

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid}) with {size_text(self.size)}"


def largest_holder(device: torch.device) -> Holder | None:
    """The other process that holds most of the device's memory; None where none is worth naming, or the driver does
    not tell (on Windows it names no sizes)."""
    holders = _on_card(device) if device.type == "cuda" else _on_host()
    others = [one for one in holders if one.pid != os.getpid() and one.size >= WORTH_NAMING]
    return max(others, key=lambda one: one.size, default=None)


def _on_card(device: torch.device) -> list[Holder]:
    """By nvidia-smi, which comes with the driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = "--query-compute-apps=gpu_uuid,pid,process_name,used_memory"
    try:
        answer = subprocess.run(  # noqa: S603
            [program, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            check=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [row for row in csv.reader(answer.stdout.splitlines(), skipinitialspace=True) if len(row) >= 4]
    uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    return [
        # A path may hold commas.
        Holder(PureWindowsPath(",".join(path)).name, int(pid), int(mebibytes) * 2**20)
        for card, pid, *path, mebibytes in rows
        if uuid in card and pid.isdigit() and mebibytes.isdigit()
    ]


def _on_host() -> list[Holder]:
    found = psutil.process_iter(["name", "pid", "memory_info"])
    return [
        Holder(process.info["name"] or "a process", process.info["pid"], process.info["memory_info"].rss)
        for process in found
        if process.info["memory_info"] is not None
    ]
