"""What a run will do, found before it starts: its images, its settings with reasons, and what is worth saying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..config import DatasetFacts, ModelFacts, TrainingConfig
from ..config.schema import Purpose
from ..data.images.dataset import Dataset, split_dataset
from ..data.images.likely_purpose import likely_purpose
from ..data.images.samples import Sample, training_samples
from .advice import notes
from .auto_values import AutoValues
from .presets import choose_validation_percent
from .resolve import Resolved, resolve


@dataclass(frozen=True)
class Plan:
    """
    Attributes:
        dataset: with the images kept apart that validation takes.
        samples: what an epoch shows.
        resolved: settings without auto, with the reason for each that was.
        notes: sentences about them.
    """

    dataset: Dataset
    samples: list[Sample]
    resolved: Resolved
    notes: tuple[str, ...]


def note_lines(notes: Sequence[str]) -> list[str]:
    """Notes under a heading; nothing for none."""
    return ["Worth knowing:", *(f"  {note}" for note in notes)] if notes else []


def make_plan(config: TrainingConfig, dataset: Dataset, model: ModelFacts) -> Plan:
    """
    Args:
        config: what it says of the data counts where the dataset's own settings are on auto.

    Raises:
        CrucibleError: the settings do not fit each other.
    """
    config = config.model_copy(update=dataset.settings.model_dump(exclude_none=True))
    dataset = _with_validation(config, dataset, model)
    samples = training_samples(dataset, config.resolution or model.native_resolution)
    facts = dataset_facts(dataset, samples, config.resolution or model.native_resolution)
    resolved = resolve(config, facts, model)
    return Plan(dataset, samples, resolved, notes(resolved.values, facts, model))


def dataset_facts(dataset: Dataset, samples: list[Sample], resolution: int) -> DatasetFacts:
    """What the choice of settings needs to know of a dataset whose epoch shows `samples`."""
    trained = sum(image.repeats for image in dataset.images) * len(dataset.settings.resolutions(resolution))
    return DatasetFacts(
        images=len(dataset.images),
        samples_per_epoch=len(samples),
        validation=len(dataset.validation),
        regularization_per_epoch=len(samples) - trained,
        trigger_word=dataset.trigger_word,
        taken_for=purpose_of(dataset),
    )


def purpose_of(dataset: Dataset) -> tuple[Purpose, str]:
    """What a dataset seems to be for, with the reason."""
    images = (*dataset.images, *dataset.validation)
    return likely_purpose([image.caption for image in images if image.caption], dataset.trigger_word)


def _with_validation(config: TrainingConfig, dataset: Dataset, model: ModelFacts) -> Dataset:
    """The dataset split by what is chosen, where its own settings leave that open."""
    if dataset.settings.validation_percent is not None:
        return dataset
    count = len(dataset.images) + len(dataset.validation)
    percent = choose_validation_percent(AutoValues(config, model.architecture), count)
    settings = dataset.settings.model_copy(update={"validation_percent": percent})
    return split_dataset(replace(dataset, settings=settings))
