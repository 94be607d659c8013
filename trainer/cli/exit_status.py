"""The exit status of a command: 0 if all of it was done, otherwise what kept it from that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from ..errors import CrucibleError, Kind


class ExitStatus(IntEnum):
    """The exit statuses, besides 128 plus the number of the signal that stopped a command."""

    DONE = 0
    OTHER = 1
    SETTINGS = 2
    """Also what argparse uses for options that are wrong."""
    DATA = 3
    MODEL = 4
    MEMORY = 5
    DISK = 6
    IN_USE = 7
    PARTLY = 8


_OF_KIND: dict[Kind, ExitStatus] = {
    "": ExitStatus.OTHER,
    "settings": ExitStatus.SETTINGS,
    "data": ExitStatus.DATA,
    "model": ExitStatus.MODEL,
    "memory": ExitStatus.MEMORY,
    "disk": ExitStatus.DISK,
    "in use": ExitStatus.IN_USE,
}

MEANINGS = {
    ExitStatus.DONE: "finished",
    ExitStatus.OTHER: "an error",
    ExitStatus.SETTINGS: "wrong options or settings",
    ExitStatus.DATA: "the data cannot be used",
    ExitStatus.MODEL: "the model or a LoRA cannot be used",
    ExitStatus.MEMORY: "not enough memory",
    ExitStatus.DISK: "the disk is full or cannot be written to",
    ExitStatus.IN_USE: "another process is working on it",
    ExitStatus.PARTLY: "a part of it failed",
}
"""What each status means, in a few words."""


def status_of(error: CrucibleError) -> ExitStatus:
    """Return the exit status that an error leads to."""
    return _OF_KIND[error.kind]


def meaning_of(status: int) -> str:
    """Return what an exit status means, in a few words."""
    if status > 128 or status < 0:  # subprocess reports a process that a signal ended by the negative number
        return "stopped"
    return MEANINGS[ExitStatus(status)] if status in MEANINGS else f"ended with status {status}"


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        facts: what `--json` tells about it, as values that JSON has.
        status: the exit status.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    status: int = ExitStatus.DONE
