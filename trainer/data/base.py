"""The interface of all datasets that a run can train on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from ..config import DatasetFacts, TrainingConfig
from ..config.output_settings import Purpose
from ..messages.wording import counted
from .text.rows import Turn


class Dataset(ABC):
    """Examples to train on, and examples held out to measure the training by.

    Attributes:
        name: the name of the dataset in messages to the user.
        unit: the word for an example in the singular, such as "image".
        not_in_folder: a sentence on what is missing if a config file only names the folder of the dataset, or "".
    """

    name: str
    unit = "example"
    not_in_folder: str = ""

    @property
    def trigger_word(self) -> str:
        """The word that calls up what is learned, or ""."""
        return ""

    @property
    def source(self) -> str:
        """The value that stands for the dataset in a config file."""
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
        """The names of the regularization examples, which show what the model should not forget."""
        return ()

    @property
    def captions(self) -> tuple[str, ...]:
        """The first caption of each training example, or ""; empty for datasets whose examples have no captions."""
        return ()

    @property
    def sample_prompts(self) -> tuple[str, ...]:
        """The prompts that samples are drawn from if the user gives none; empty for datasets with captions."""
        return ()

    @property
    def regularization_prompts(self) -> tuple[tuple[Turn, ...], ...]:
        """The prompts that the base model is to answer itself for regularization; empty if the user gave none.

        Each is a conversation that ends with a turn of the user.
        """
        return ()

    @property
    def unrelated_prompts(self) -> tuple[str, ...]:
        """Prompts that show what a language model forgets; empty to take general ones or those for regularization."""
        return ()

    def require_trainable(self) -> None:
        """Check that nothing in the dataset prevents training.

        Raises:
            CrucibleError: the dataset cannot be trained.
        """
        return

    def settle(self, config: TrainingConfig) -> TrainingConfig:
        """Return the config with the settings that this dataset was loaded with."""
        return config

    @property
    def validation_percent(self) -> float | None:
        """The percentage of examples to hold out; None if it is chosen automatically and set by `with_validation`."""
        return 0.0

    def with_validation(self, percent: float) -> Dataset:
        """Return the dataset with this percentage of its examples held out for validation."""
        return self

    def at_resolution(self, resolution: int) -> Dataset:
        """Return the dataset with a lower resolution."""
        return self

    def preview_size(self, resolution: int) -> tuple[int, int]:
        """Return the width and height of samples that suit the dataset, in pixels."""
        return resolution, resolution

    @abstractmethod
    def examples(self, resolution: int | None) -> list[Any]:
        """Return the examples of an epoch in a fixed order; those that are repeated occur several times."""

    def measured_examples(self, most: int, resolution: int | None) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return fixed held-out and training examples to measure the training by, at most `most` of each.

        They are the same every time.
        """
        return (), ()

    def facts(self, examples: Sequence[Any], resolution: int | None) -> DatasetFacts:
        """Return the facts about the dataset that automatic settings depend on, given the examples of an epoch."""
        return DatasetFacts(
            examples=len(self.training_names),
            bucket_sizes=tuple(Counter(self.bucket(example) for example in examples).values()),
            validation=len(self.validation_names),
            trigger_word=self.trigger_word,
            taken_for=self.likely_purpose(),
            unit=self.unit,
        )

    def bucket(self, example: Any) -> Hashable:
        """Return what an example has in common with those that it can share a batch with, as far as it is known."""
        return ()

    def likely_purpose(self) -> tuple[Purpose, str]:
        """Return the purpose that the dataset seems to have, with the reason for the guess."""
        return "concept", "nothing is known of the captions"

    def summary(self, resolution: int | None) -> str:
        """Return the number of examples as a phrase for reports, such as "20 images at 512 px"."""
        return counted(len(self.training_names), self.unit)
