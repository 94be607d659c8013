"""Why steps may have become slow, as far as the computer tells, and what to do about it."""

from __future__ import annotations

import platform
import sys
import time

import psutil
import torch

from ..messages.wording import listed, size_text
from .nvidia import nvidia_cards

FULL = 0.03
"""Share of a memory that is free when it is as good as full."""

BUSY = 0.25
"""Share of all processors from which on other programs make a difference."""

WORTH_NAMING = 0.1
"""Share of one processor."""

LOOKING = 0.5
"""Seconds in which the work of other programs is measured."""


def likely_cause(device: torch.device) -> str:
    """One or a few sentences. Takes about a second."""
    found = [_of_main_memory(), _of_the_processor()]
    if device.type == "cuda":
        found = [_of_its_memory(device), _of_its_programs(), *found]
    return " ".join(filter(None, found)) or (
        "The cause is not known: neither memory nor other programs stand out. The computer may be too hot, or save "
        "energy."
    )


def _of_its_memory(device: torch.device) -> str:
    free, total = torch.cuda.mem_get_info(device)
    if free >= FULL * total:
        return ""
    full = (
        f"The memory of the GPU is full: {size_text(total - free)} of {size_text(total)}, of which this training holds "
        f"{size_text(torch.cuda.memory_reserved(device))}."
    )
    remedy = "Close other programs; a smaller batch_size and gradient_checkpointing need less memory."
    if _spills():
        return (
            f"{full} Windows then moves a part of it to main memory, which is 10 to 100 times slower. {remedy} With "
            '"CUDA - Sysmem Fallback Policy" at "Prefer No Sysmem Fallback" in the NVIDIA Control Panel, the training '
            "notices by itself that memory is short, and makes do with less."
        )
    if torch.cuda.memory_stats(device).get("num_alloc_retries", 0):
        return f"{full} So torch gives memory back and claims it again all the time. {remedy}"
    return ""


def _spills() -> bool:
    """Whether the driver takes main memory when that of the card is full: Windows, and Linux inside Windows."""
    return sys.platform == "win32" or "microsoft" in platform.release().lower()


def _of_its_programs() -> str:
    own = psutil.Process().pid
    cards, _ = nvidia_cards()
    # A process in a container does not find itself: then it may be any card.
    mine = [card for card in cards if any(holder.pid == own for holder in card.holders)] or cards
    others = [holder.name for card in mine for holder in card.holders if holder.pid != own]
    if not others:
        return ""
    return f"Beside this training there are on the GPU: {listed(others)}. If one of them is busy, close it."


def _of_main_memory() -> str:
    memory = psutil.virtual_memory()
    if memory.available >= FULL * memory.total:
        return ""
    return (
        f"The main memory is full: {size_text(memory.available)} of {size_text(memory.total)} are free, so the system "
        "moves parts of it to disk. Close other programs."
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
    """The share of a core that each has used since it was asked last; 0 the first time, and when it is gone."""
    shares = []
    for process in processes:
        try:
            shares.append(process.cpu_percent() / 100)
        except psutil.Error:
            shares.append(0.0)
    return shares
