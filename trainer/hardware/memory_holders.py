"""The search for other programs that use the memory that a training needs."""

from __future__ import annotations

import os
from collections.abc import Iterable

import psutil
import torch

from ..messages.wording import size_text
from .nvidia import Holder, nvidia_cards

WORTH_NAMING = 500_000_000
"""The fewest bytes that a program must hold for closing it to help."""


def largest_holder(device: torch.device) -> str:
    """Describe the other process that holds the most memory of a device: its name, id and memory.

    Returns:
        The description, or "" if no process is worth naming or the driver reports no sizes (as on Windows).
    """
    holders = _on_card(device) if device.type == "cuda" else _on_host()
    others = [(one.size, one) for one in holders if one.pid != os.getpid() and (one.size or 0) >= WORTH_NAMING]
    size, largest = max(others, key=lambda one: one[0] or 0, default=(0, None))
    return "" if largest is None else f"{largest.name} (process {largest.pid}) with {size_text(size or 0)}"


def _on_card(device: torch.device) -> Iterable[Holder]:
    uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    cards, _ = nvidia_cards()
    return [holder for card in cards if uuid in card.uuid for holder in card.holders]


def _on_host() -> Iterable[Holder]:
    return [
        Holder(process.info["name"] or "a process", process.info["pid"], process.info["memory_info"].rss)
        for process in psutil.process_iter(["name", "pid", "memory_info"])
        if process.info["memory_info"] is not None
    ]
