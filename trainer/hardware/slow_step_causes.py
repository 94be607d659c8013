"""Likely causes of slow steps, as far as the system reports them, with advice."""

from __future__ import annotations

import platform
import sys
import time

import psutil
import torch

from ..messages.wording import listed, size_text
from .nvidia import nvidia_cards

FULL = 0.03
"""The share of a memory below which, if no more is free, it counts as full."""

BUSY = 0.25
"""The share of all processor cores that other programs must use to be reported."""

WORTH_NAMING = 0.1
"""The share of one processor core that a program must use to be named."""

LOOKING = 0.5
"""The time for which the processor use of other programs is measured, in seconds."""


def likely_cause(device: torch.device) -> str:
    """Return one or a few sentences about why steps may be slow now. Takes about a second."""
    found = [_of_main_memory(), _of_the_processor()]
    if device.type == "cuda":
        found = [_of_its_memory(device), _of_its_programs(), *found]
    return " ".join(filter(None, found)) or (
        "The cause is not known: there is enough memory, and no other program stands out. The computer may be too hot, "
        "or in a power-saving mode."
    )


def _of_its_memory(device: torch.device) -> str:
    free, total = torch.cuda.mem_get_info(device)
    if free >= FULL * total:
        return ""
    full = (
        f"GPU memory is full: {size_text(total - free)} of {size_text(total)} are in use, "
        f"{size_text(torch.cuda.memory_reserved(device))} of them by this training."
    )
    remedy = "Close other programs; a smaller batch_size or gradient_checkpointing needs less memory."
    if _spills():
        return (
            f"{full} Windows then moves part of it to main memory, which is 10 to 100 times slower. {remedy} With "
            '"CUDA - Sysmem Fallback Policy" set to "Prefer No Sysmem Fallback" in the NVIDIA Control Panel, the '
            "training notices when GPU memory runs out, and uses less."
        )
    if torch.cuda.memory_stats(device).get("num_alloc_retries", 0):
        return f"{full} PyTorch therefore has to free and allocate memory again and again. {remedy}"
    return ""


def _spills() -> bool:
    """Return whether the driver uses main memory when GPU memory is full, as on Windows and in WSL."""
    return sys.platform == "win32" or "microsoft" in platform.release().lower()


def _of_its_programs() -> str:
    own = psutil.Process().pid
    cards, _ = nvidia_cards()
    # A process in a container is not listed, so any card may be the one in use.
    mine = [card for card in cards if any(holder.pid == own for holder in card.holders)] or cards
    others = [holder.name for card in mine for holder in card.holders if holder.pid != own]
    if not others:
        return ""
    return f"Other programs use the GPU too: {listed(others)}. If one of them is busy, close it."


def _of_main_memory() -> str:
    memory = psutil.virtual_memory()
    if memory.available >= FULL * memory.total:
        return ""
    return (
        f"Main memory (RAM) is full: only {size_text(memory.available)} of {size_text(memory.total)} are free, so the "
        "system moves parts of it to disk. Close other programs."
    )


def _of_the_processor() -> str:
    own = {process.pid for process in (psutil.Process(), *psutil.Process().children(recursive=True))}
    others = [process for process in psutil.process_iter(["name"]) if process.pid not in own]
    _work(others)
    time.sleep(LOOKING)
    work = [(share, process.info["name"]) for share, process in zip(_work(others), others, strict=True)]
    busy = sum(share for share, _ in work)
    if busy < BUSY * (psutil.cpu_count() or 1):
        return ""
    names = [f"{name} ({share:.0%})" for share, name in sorted(work, reverse=True) if share >= WORTH_NAMING]
    return (
        f"Other programs keep {busy:.1f} of {psutil.cpu_count()} processor cores busy: {listed(names)}. Close them, or "
        "wait until they are done."
    )


def _work(processes: list[psutil.Process]) -> list[float]:
    """Return the share of a core that each process used since the last call; 0 at first, and for ended processes."""
    shares = []
    for process in processes:
        try:
            shares.append(process.cpu_percent() / 100)
        except psutil.Error:
            shares.append(0.0)
    return shares
