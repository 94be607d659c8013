"""The start of a run's training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunStart:
    """What is decided when the first step of a run, or the first after it was resumed, is about to be done.

    Attributes:
        name: the name of the run.
        folder: the folder of the run.
        lora: the path that the LoRA will have.
        step: the number of steps that are done already.
        steps: the number of steps that the run is to have.
        settings: the value of every setting.
        reasons: the reason for each value that was chosen automatically, by the name of the setting.
        memory: lines about the memory that steps are expected to need.
        notes: sentences about the settings, the base model and what the run starts from.
    """

    name: str
    folder: Path
    lora: Path
    step: int
    steps: int
    settings: Mapping[str, Any]
    reasons: Mapping[str, str]
    memory: tuple[str, ...]
    notes: tuple[str, ...]
