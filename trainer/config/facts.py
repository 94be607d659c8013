"""The facts about a dataset and a model that automatic settings depend on."""

from __future__ import annotations

from dataclasses import dataclass

from .output_settings import Purpose

LANGUAGE = "language"
"""The architecture of all language models."""


@dataclass(frozen=True)
class DatasetFacts:
    """The facts about a dataset that automatic settings depend on.

    Attributes:
        images: the number of training images.
        bucket_sizes: the number of examples of each shape in an epoch, counting repeats, all resolutions and
            regularization images. Only examples of the same shape share a batch.
        validation: the number of images held out for validation.
        regularization_per_epoch: the number of samples in an epoch that are regularization images.
        trigger_word: the trigger word, or an empty string.
        taken_for: the purpose that the captions suggest, with the reason.
    """

    images: int
    bucket_sizes: tuple[int, ...]
    validation: int = 0
    regularization_per_epoch: int = 0
    trigger_word: str = ""
    taken_for: tuple[Purpose, str] = ("concept", "nothing is known about the captions")

    @property
    def samples_per_epoch(self) -> int:
        """The number of examples in an epoch."""
        return sum(self.bucket_sizes)

    def batches_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches in an epoch; the last one of a bucket may be smaller than the others."""
        return sum(-(-size // batch_size) for size in self.bucket_sizes)

    def steps_per_epoch(self, batch_size: int, accumulation: int) -> int:
        """Return the number of optimizer steps in an epoch."""
        return -(-self.batches_per_epoch(batch_size) // accumulation)

    @property
    def training_share(self) -> float:
        """The fraction of the samples in an epoch that are training images, above 0 and up to 1."""
        return (self.samples_per_epoch - self.regularization_per_epoch) / self.samples_per_epoch


@dataclass(frozen=True)
class ModelFacts:
    """The facts about a base model that automatic settings depend on.

    Attributes:
        architecture: the name of the architecture: `demo`, `sd15`, `sdxl`, `language`, …
        native_resolution: the side length in pixels of the images that the model was made for.
        sample_cfg: the guidance scale that suits the model.
        prediction_type: the quantity that the model predicts: `epsilon`, `v_prediction` or `flow`; "" for models
            without noise levels.
        parameters: the number of parameters of a language model; 0 if it is not known.
        linear_sizes: the inputs and outputs of all linear layers of a language model that can have an adapter, added
            up, which is the size of a LoRA of rank 1 on all of them; 0 if it is not known.
        spare_memory: the bytes of the device's whole memory that its weights leave free; None if it is not known.
    """

    architecture: str
    native_resolution: int | None = None
    sample_cfg: float = 1.0
    prediction_type: str = ""
    parameters: int = 0
    linear_sizes: int = 0
    spare_memory: int | None = None

    @property
    def is_language(self) -> bool:
        """Whether it is a language model."""
        return self.architecture == LANGUAGE
