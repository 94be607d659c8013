"""Examination of the devices that can train, their free memory, and the programs that use the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..hardware.nvidia import Card, nvidia_cards
from .packages import GET_TORCH
from .page import Advice, Section, size_text
from .requirements import TORCH

WORTH_NAMING = 10**9
"""The fewest bytes used by other programs on a card that make a difference to a training."""


def examine_devices(answers: Mapping[str, Mapping[str, Any]]) -> Section:
    """Examine the graphics cards, the devices that torch can compute on, and main memory.

    Args:
        answers: the probe's answers by step, among them `devices` (from torch) and `memory` (from psutil).
    """
    section = Section("Devices and memory")
    cards, trouble = nvidia_cards()
    for card in cards:
        section.rows += _card_rows(card)
        section.notes += _held(card)
    if trouble:
        section.notes.append(
            Advice(
                f"nvidia-smi is installed but fails ({trouble}), so NVIDIA cards are not listed. Reinstall the NVIDIA "
                "driver."
            )
        )
    torch = answers.get("devices")
    if torch is not None and "error" not in torch:
        for device in torch["devices"]:
            section.rows.append((f"torch {device['device']}", _device_text(device)))
        if not torch["devices"]:
            section.rows.append(("torch", "CPU only"))
        section.obstacles += _unusable(cards, torch)
        if not torch["devices"] and not section.obstacles:
            section.notes.append(
                Advice(
                    "torch finds no graphics card, so training runs on the CPU: a minute for the demo, hours or days "
                    "for full-size models."
                )
            )
    elif torch is not None and not answers.get(TORCH.package, {"error": "missing"}).get("error"):
        section.obstacles.append(
            Advice(
                f"torch fails when asked for its devices ({torch['error']}), so no training can start. Update the "
                f"graphics driver, or reinstall torch with the command from this page: {GET_TORCH}"
            )
        )
    section.rows += _host_rows(answers.get("memory", {}))
    return section


def _card_rows(card: Card) -> Iterable[tuple[str, str]]:
    yield f"card {card.number}", f"{card.name}, driver {card.driver}"
    if card.total:
        yield "", f"{size_text(card.total)}, {size_text(card.free)} free"
    for holder in card.holders:
        size = "?" if holder.size is None else size_text(holder.size)
        yield "  in use", f"{size}  {holder.name} (pid {holder.pid})"
    unlisted = _unlisted(card)
    if unlisted >= WORTH_NAMING:
        yield "  in use", f"{size_text(unlisted)}  unlisted: the desktop, or another container"


def _unlisted(card: Card) -> int:
    """Return the bytes in use that no listed process accounts for; 0 if the sizes of processes are unknown."""
    if any(holder.size is None for holder in card.holders):
        return 0
    return card.total - card.free - sum(holder.size or 0 for holder in card.holders)


def _held(card: Card) -> Iterable[Advice]:
    names = ", ".join(
        f"{holder.name} (pid {holder.pid})" for holder in card.holders if (holder.size or WORTH_NAMING) >= WORTH_NAMING
    )
    used = card.total - card.free
    if used >= WORTH_NAMING:
        yield Advice(
            f"{size_text(used)} of the memory of {card.name} is in use by {names or 'programs that are not listed'}, "
            "and training gets only the rest. ComfyUI frees memory for its own training runs; close other programs."
        )


def _device_text(device: Mapping[str, Any]) -> str:
    parts = [device["name"]]
    if "compute" in device:
        parts.append(f"compute {device['compute']}")
    if "free" in device:
        parts.append(f"{size_text(device['total'])}, {size_text(device['free'])} free")
    if "bf16" in device:
        parts.append("bf16" if device["bf16"] else "no bf16")
    return ", ".join([*parts, f"fails: {device['error']}"] if device.get("error") else parts)


def _unusable(cards: list[Card], torch: Mapping[str, Any]) -> Iterable[Advice]:
    """Yield an obstacle for each graphics card that torch cannot compute on."""
    for device in torch["devices"]:
        if device.get("error"):
            yield Advice(
                f"torch sees {device['name']} but cannot compute on it ({device['error']}), so no training can run "
                "there. Either another program has exclusive use of the card, or this torch does not support it; in "
                f"that case, reinstall torch with the command that this page gives for the card: {GET_TORCH}"
            )
    if torch["devices"] or not cards:
        return
    name = cards[0].name
    if not torch["cuda"]:
        yield Advice(
            f"This computer has an NVIDIA card ({name}), but the installed torch was built without CUDA, so training "
            "would run on the CPU, many times slower. Uninstall torch, torchvision and torchaudio, and reinstall them "
            f"with the command that this page gives for CUDA: {GET_TORCH}"
        )
    else:
        reason = f" ({torch['reason']})" if torch["reason"] else ""
        yield Advice(
            f"This computer has an NVIDIA card ({name}), but torch cannot use it{reason}, so training would run on the "
            f"CPU, many times slower. Update the driver ({cards[0].driver}) to one that supports CUDA {torch['cuda']}, "
            "and unset the environment variable CUDA_VISIBLE_DEVICES if it is set."
        )


def _host_rows(memory: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    total, free = memory.get("total"), memory.get("free")
    if total is None:
        total, free = _memory_of_linux()
    yield "memory", f"{size_text(total)}, {size_text(free)} free" if total and free else "unknown without psutil"
    for size, name, pid in memory.get("processes", ()):
        yield "  in use", f"{size_text(size)}  {name} (pid {pid})"


def _memory_of_linux() -> tuple[int | None, int | None]:
    """Return the total and available bytes of memory as Linux reports them, for use if psutil is missing."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kibibytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    except (OSError, ValueError):
        return None, None
    return kibibytes.get("MemTotal", 0) * 1024, kibibytes.get("MemAvailable", 0) * 1024
