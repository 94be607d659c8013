"""A dataset of captioned images as training sees it, in a fixed order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ...config import DatasetFacts, TrainingConfig
from ...config.data_settings import OPEN_IN_DATASETS, DataSettings
from ...config.output_settings import Purpose
from ...demo import DATASET_DIR
from ...errors import CrucibleError
from ...messages.wording import counted
from ..base import Dataset
from ..findings import Finding
from ..spread import spread
from .buckets import Buckets
from .examples import ImageExample, fixed_examples, training_samples
from .likely_purpose import likely_purpose
from .split import validation_indices
from .training_image import TrainingImage

DEMO = "demo"
"""The name that stands for the dataset that comes with the package, used instead of a folder."""


@dataclass(frozen=True)
class ImageDataset(Dataset):
    """A dataset of images with captions.

    Attributes:
        name: the name shown to the user: that of the folder, or `demo`.
        folder: the folder of the images.
        settings: the settings that the dataset was loaded with, which become part of the run's config.
        images: the training images, in the same order on every machine.
        validation: the images held out to measure the training.
        regularization: the images of what the model should not forget.
        findings: everything about the dataset that the user should know.
        not_in_folder: a sentence on what is missing if a config file names only the folder, or an empty string.
    """

    unit = "image"
    name: str
    folder: Path
    settings: DataSettings
    images: tuple[TrainingImage, ...]
    validation: tuple[TrainingImage, ...] = ()
    regularization: tuple[TrainingImage, ...] = ()
    findings: tuple[Finding, ...] = ()
    not_in_folder: str = ""

    @property
    def trigger_word(self) -> str:
        """The word that calls up what is learned, or an empty string."""
        return self.settings.trigger_word

    @property
    def source(self) -> str:
        """The value of `train_data_dir` that stands for the dataset in a config file."""
        return DEMO if self.folder == DATASET_DIR else str(self.folder)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what training depends on: image files, masks, captions, their order and the settings.

        It does not depend on where the folder is or when its files were written, nor on what a dataset may leave open:
        a run has the values that were decided among its own settings.
        """
        left_out = {"train_data_dir", "reg_data_dir", "metadata_path", *OPEN_IN_DATASETS}
        digest = hashlib.sha256(self.settings.model_dump_json(exclude=left_out).encode())
        for part in (self.images, self.validation, self.regularization):
            digest.update(f"{len(part)}\0".encode())
            for image in part:
                digest.update(f"{image.facts.content}\0{image.repeats}\0".encode())
                if image.mask is not None and image.mask != image.path:
                    digest.update(hashlib.sha256(image.mask.read_bytes()).digest())
                for caption in image.captions:
                    digest.update(hashlib.sha256(caption.encode("utf-8", "surrogatepass")).digest())
        return digest.hexdigest()

    def require_trainable(self) -> None:
        """Check that the dataset can be trained.

        Raises:
            CrucibleError: the dataset has a problem that makes training pointless.
        """
        errors = [finding.text() for finding in self.findings if finding.severity == "error"]
        if errors:
            raise CrucibleError(
                f"The dataset {self.name} in {self.folder} cannot be trained yet.\n" + "\n".join(errors)
            )

    @property
    def validation_seed(self) -> int:
        return self.settings.validation_seed

    @property
    def training_names(self) -> tuple[str, ...]:
        return tuple(image.name for image in self.images)

    @property
    def validation_names(self) -> tuple[str, ...]:
        return tuple(image.name for image in self.validation)

    @property
    def regularization_names(self) -> tuple[str, ...]:
        return tuple(image.name for image in self.regularization)

    @property
    def captions(self) -> tuple[str, ...]:
        return tuple(image.caption for image in self.images)

    def settle(self, config: TrainingConfig) -> TrainingConfig:
        return config.model_copy(update=self.settings.model_dump(exclude_none=True))

    @property
    def validation_percent(self) -> float | None:
        return self.settings.validation_percent

    def with_validation(self, percent: float) -> ImageDataset:
        settings = self.settings.model_copy(update={"validation_percent": percent})
        return split_dataset(replace(self, settings=settings))

    def at_resolution(self, resolution: int) -> ImageDataset:
        more = [str(one) for one in self.settings.resolutions(resolution)[1:] if one < resolution]
        lower = {"resolution": resolution, "extra_resolutions": ", ".join(more)}
        return replace(self, settings=self.settings.model_copy(update=lower))

    def preview_size(self, resolution: int) -> tuple[int, int]:
        return Buckets.of(self.settings, resolution).size(resolution, resolution)

    def examples(self, resolution: int | None) -> list[ImageExample]:
        assert resolution is not None
        return training_samples(self, resolution)

    def measured_examples(self, most: int, resolution: int | None) -> tuple[list[ImageExample], list[ImageExample]]:
        assert resolution is not None
        held_out = spread(self.validation, most)
        trained = spread(self.images, len(held_out) or most)
        return fixed_examples(self.settings, held_out, resolution), fixed_examples(self.settings, trained, resolution)

    def bucket(self, example: ImageExample) -> tuple[int, int]:
        return example.size

    def facts(self, examples: Sequence[ImageExample], resolution: int | None) -> DatasetFacts:
        assert resolution is not None
        trained = sum(image.repeats for image in self.images) * len(self.settings.resolutions(resolution))
        return replace(super().facts(examples, resolution), regularization_per_epoch=len(examples) - trained)

    def likely_purpose(self) -> tuple[Purpose, str]:
        images = (*self.images, *self.validation)
        return likely_purpose([image.caption for image in images if image.caption], self.trigger_word)

    def summary(self, resolution: int | None) -> str:
        return f"{len(self.images)} images at {resolution} px"


def split_dataset(dataset: ImageDataset) -> ImageDataset:
    """Return a dataset with `validation_percent` of its images held out for validation."""
    everything = [*dataset.images, *dataset.validation]
    percent = dataset.settings.validation_percent or 0
    chosen = validation_indices([image.facts for image in everything], percent, dataset.settings.validation_seed)
    findings = [finding for finding in dataset.findings if finding.kind != "validation"]
    if percent and not chosen:
        findings.append(
            Finding(
                "validation",
                "warning",
                f"No image could be held out for validation ({percent:g} % of {counted(len(everything), 'image')})",
                "Nothing will show when the training starts to overfit.",
                "Add images that are not alike, or set a higher percentage.",
            )
        )
    return replace(
        dataset,
        images=tuple(image for index, image in enumerate(everything) if index not in chosen),
        validation=tuple(image for index, image in enumerate(everything) if index in chosen),
        findings=tuple(findings),
    )
