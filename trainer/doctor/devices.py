"""What a training can compute on, how much memory is free there, and who holds the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..hardware.nvidia import Card, nvidia_cards
from .packages import GET_TORCH
from .page import Advice, Section, size_text
from .requirements import TORCH

WORTH_NAMING = 10**9
"""Bytes on a card that another program holds, from which on they make a difference to a training."""


def examine_devices(answers: Mapping[str, Mapping[str, Any]]) -> Section:
    """
    Args:
        answers: of the probe, among them to the steps `devices` (of torch) and `memory` (of psutil).
    """
    section = Section("Devices and memory")
    cards, trouble = nvidia_cards()
    for card in cards:
        section.rows += _card_rows(card)
        section.notes += _held(card)
    if trouble:
        section.notes.append(
            Advice(
                f"nvidia-smi is installed but fails ({trouble}), so NVIDIA cards are not listed. Reinstall the driver."
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
                    "torch finds no graphics card, so a training runs on the CPU: a minute for the demo, hours or days "
                    "for full-size models."
                )
            )
    elif torch is not None and not answers.get(TORCH.package, {"error": "missing"}).get("error"):
        section.obstacles.append(
            Advice(
                f"torch fails when it is asked for devices ({torch['error']}), so no training can start. Update the "
                f"graphics driver, or reinstall torch by the command that this page gives for it: {GET_TORCH}"
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
        yield "  held", f"{size}  {holder.name} (pid {holder.pid})"
    unlisted = _unlisted(card)
    if unlisted >= WORTH_NAMING:
        yield "  held", f"{size_text(unlisted)}  not listed: the desktop, or another container"


def _unlisted(card: Card) -> int:
    """Bytes in use that no process is listed for; 0 where the sizes of processes are not known."""
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
            f"{size_text(used)} of {card.name} are in use by {names or 'programs that are not listed'}, and a training "
            "gets what is left. ComfyUI makes room for its own trainings; close other programs."
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
    """Graphics cards that torch cannot compute on."""
    for device in torch["devices"]:
        if device.get("error"):
            yield Advice(
                f"torch sees {device['name']} but cannot compute on it ({device['error']}), so no training can run "
                "there. Either it is in use by another program alone, or this torch is not made for this card: then "
                f"reinstall torch by the command that this page gives for it: {GET_TORCH}"
            )
    if torch["devices"] or not cards:
        return
    name = cards[0].name
    if not torch["cuda"]:
        yield Advice(
            f"This computer has an NVIDIA card ({name}), but the installed torch is made without CUDA, so a training "
            "would run on the CPU, many times slower. Uninstall torch, torchvision and torchaudio, and install them "
            f"by the command that this page gives for CUDA: {GET_TORCH}"
        )
    else:
        reason = f" ({torch['reason']})" if torch["reason"] else ""
        yield Advice(
            f"This computer has an NVIDIA card ({name}), but torch cannot use it{reason}, so a training would run on "
            f"the CPU, many times slower. Update the driver ({cards[0].driver}) to one for CUDA {torch['cuda']}, and "
            "unset the environment variable CUDA_VISIBLE_DEVICES if it is set."
        )


def _host_rows(memory: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    total, free = memory.get("total"), memory.get("free")
    if total is None:
        total, free = _memory_of_linux()
    yield "memory", f"{size_text(total)}, {size_text(free)} free" if total and free else "not known without psutil"
    for size, name, pid in memory.get("processes", ()):
        yield "  held", f"{size_text(size)}  {name} (pid {pid})"


def _memory_of_linux() -> tuple[int | None, int | None]:
    """Bytes of memory in all and available, from the system itself, for when psutil is missing."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kibibytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    except (OSError, ValueError):
        return None, None
    return kibibytes.get("MemTotal", 0) * 1024, kibibytes.get("MemAvailable", 0) * 1024
