"""What the choice of settings needs to know of a dataset and of a model."""

from __future__ import annotations

from dataclasses import dataclass

from .schema import Purpose


@dataclass(frozen=True)
class DatasetFacts:
    """
    Attributes:
        images: that are trained. validation: that are kept apart. The latter may be chosen from both.
        samples_per_epoch: how many an epoch shows: with repeats, at all resolutions, and regularization images.
        regularization_per_epoch: how many of these are regularization images.
        trigger_word: or "".
        taken_for: the purpose that its captions speak for, with the reason in words.
    """

    images: int
    samples_per_epoch: int
    validation: int = 0
    regularization_per_epoch: int = 0
    trigger_word: str = ""
    taken_for: tuple[Purpose, str] = ("concept", "nothing is known of the captions")

    @property
    def training_share(self) -> float:
        """Which part of what an epoch shows are training images, above 0 up to 1."""
        return (self.samples_per_epoch - self.regularization_per_epoch) / self.samples_per_epoch


@dataclass(frozen=True)
class ModelFacts:
    """
    Attributes:
        architecture: `demo`, `sd15`, `sdxl`, …
        native_resolution: side in pixels of the images that the model was made for.
        sample_cfg: guidance scale that suits it.
        prediction_type: epsilon, v_prediction or flow.
    """

    architecture: str
    native_resolution: int
    sample_cfg: float
    prediction_type: str
