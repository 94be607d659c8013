"""What a run asks of any dataset, whatever its examples are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ..config import DatasetFacts, TrainingConfig
from ..config.output_settings import Purpose
from ..messages.wording import counted


class Dataset(ABC):
    """Examples to train on, and examples held out to measure the training by.

    Attributes:
        name: what the user calls it.
        unit: what an example is called, in the singular.
        not_in_folder: what a config file that names the dataset's folder would miss, as a sentence; or "".
    """

    name: str
    unit = "example"
    not_in_folder: str = ""

    @property
    def trigger_word(self) -> str:
        """The word that calls up what is learned; or ""."""
        return ""

    @property
    def source(self) -> str:
        """What stands for the dataset in a config file."""
        return self.name

    @property
    def validation_seed(self) -> int:
        """The seed of the noise that examples are measured with."""
        return 0

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of everything in the dataset that training depends on."""

    @property
    @abstractmethod
    def training_names(self) -> tuple[str, ...]:
        """The names of the examples that are trained."""

    @property
    def validation_names(self) -> tuple[str, ...]:
        """The names of the examples that are held out."""
        return ()

    @property
    def regularization_names(self) -> tuple[str, ...]:
        """The names of the examples that show what the model should not forget."""
        return ()

    @property
    def captions(self) -> tuple[str, ...]:
        """The first caption of each example that is trained, or ""; none for examples without captions."""
        return ()

    def require_trainable(self) -> None:
        """Check that nothing in the dataset prevents training.

        Raises:
            CrucibleError: something does.
        """
        return

    def settle(self, config: TrainingConfig) -> TrainingConfig:
        """Return the config with the values that this dataset was made with."""
        return config

    @property
    def validation_percent(self) -> float | None:
        """The percentage of examples that is held out; None if that is left to `with_validation`."""
        return 0.0

    def with_validation(self, percent: float) -> Dataset:
        """Return the same dataset with another part of it held out."""
        return self

    def at_resolution(self, resolution: int) -> Dataset:
        """Return the dataset as it is trained at a lower resolution."""
        return self

    def preview_size(self, resolution: int) -> tuple[int, int]:
        """Return the width and height of samples that suit the dataset, in pixels."""
        return resolution, resolution

    @abstractmethod
    def examples(self, resolution: int | None) -> list[Any]:
        """Return the examples of an epoch in a fixed order; those that are repeated occur several times."""

    def measured_examples(self, most: int, resolution: int | None) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return held-out examples and training examples to measure the training by, at most `most` of each.

        They are the same every time: nothing about them is random.
        """
        return (), ()

    def facts(self, examples: Sequence[Any], resolution: int | None) -> DatasetFacts:
        """Return what the choice of settings needs to know of the dataset, given the examples of an epoch."""
        return DatasetFacts(
            images=len(self.training_names),
            samples_per_epoch=len(examples),
            validation=len(self.validation_names),
            trigger_word=self.trigger_word,
            taken_for=self.likely_purpose(),
        )

    def likely_purpose(self) -> tuple[Purpose, str]:
        """Return what the dataset seems to be meant for, with the reason."""
        return "concept", "nothing is known of the captions"

    def summary(self, resolution: int | None) -> str:
        """Return the number of examples in words, for reports."""
        return counted(len(self.training_names), self.unit)
