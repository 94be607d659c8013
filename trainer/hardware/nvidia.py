"""NVIDIA cards as their driver describes them. Imports only the standard library."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PureWindowsPath


@dataclass(frozen=True)
class Holder:
    """A process that holds memory; `size` is in bytes, or None if the driver does not report it (Windows)."""

    name: str
    pid: int
    size: int | None


@dataclass(frozen=True)
class Card:
    """An NVIDIA card as its driver describes it.

    `total` and `free` are in bytes, and 0 if the card shares the host's memory.
    """

    number: str
    uuid: str
    name: str
    total: int
    free: int
    driver: str
    holders: tuple[Holder, ...]


def nvidia_cards() -> tuple[list[Card], str]:
    """Return the cards that nvidia-smi, which comes with the driver, lists, and its error, or "" if it did not fail."""
    if shutil.which("nvidia-smi") is None:
        return [], ""
    try:
        described = _nvidia_smi("--query-gpu=index,uuid,name,memory.total,memory.free,driver_version")
        processes = _nvidia_smi("--query-compute-apps=gpu_uuid,pid,process_name,used_memory")
        return [_card(row, processes) for row in described], ""
    except subprocess.CalledProcessError as error:
        text = (error.stdout or "").strip() or (error.stderr or "").strip()
        return [], text.splitlines()[0] if text else f"status {error.returncode}"
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return [], str(error)


def _nvidia_smi(query: str) -> list[list[str]]:
    done = subprocess.run(  # noqa: S603
        [shutil.which("nvidia-smi") or "nvidia-smi", query, "--format=csv,noheader,nounits"],
        capture_output=True,
        check=True,
        encoding="utf-8",
        errors="replace",
        timeout=30,
    )
    return [row for row in csv.reader(done.stdout.splitlines(), skipinitialspace=True) if row]


def _card(row: list[str], processes: Iterable[list[str]]) -> Card:
    number, uuid, name, total, free, driver = row
    holders = tuple(
        # A path may contain commas. Its last part is enough, and does not reveal a user's name.
        Holder(PureWindowsPath(",".join(path)).name, int(pid), _bytes(used))
        for owner, pid, *path, used in processes
        if owner == uuid and pid.isdigit()
    )
    return Card(number, uuid, name, _bytes(total) or 0, _bytes(free) or 0, driver, holders)


def _bytes(mebibytes: str) -> int | None:
    return int(mebibytes) * 2**20 if mebibytes.isdigit() else None
