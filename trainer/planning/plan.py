"""The plan of a run: its examples, its settings with the reasons for them, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..config import ModelFacts, TrainingConfig
from ..data.base import Dataset
from .advice import notes
from .auto_values import AutoValues
from .presets import choose_validation_percent
from .resolve import Resolved, resolve


@dataclass(frozen=True)
class Plan:
    """A dataset and the settings that it is trained with.

    Attributes:
        dataset: the dataset, with the examples held out that validation needs.
        examples: the examples of an epoch.
        resolved: the settings without any auto value, and the reason for each value that was chosen.
        notes: sentences about the settings that the user should read.
    """

    dataset: Dataset
    examples: list[Any]
    resolved: Resolved
    notes: tuple[str, ...]


def note_lines(notes: Sequence[str]) -> list[str]:
    """Return notes under a heading, or nothing if there are none."""
    return ["Notes:", *(f"  {note}" for note in notes)] if notes else []


def make_plan(config: TrainingConfig, dataset: Dataset, model: ModelFacts) -> Plan:
    """Decide on everything that the config leaves open.

    Args:
        config: the settings. Those about data count where the dataset itself leaves them open.
        dataset: the dataset to train on.
        model: the base model to train on.

    Raises:
        CrucibleError: the settings contradict each other.
    """
    config = dataset.settle(config)
    if dataset.validation_percent is None:
        choices = AutoValues(config, model.architecture, dataset.unit)
        count = len(dataset.training_names) + len(dataset.validation_names)
        dataset = dataset.with_validation(choose_validation_percent(choices, count))
    resolution = config.resolution or model.native_resolution
    examples = dataset.examples(resolution)
    facts = dataset.facts(examples, resolution)
    resolved = resolve(config, facts, model)
    return Plan(dataset, examples, resolved, notes(resolved.values, facts, model))
