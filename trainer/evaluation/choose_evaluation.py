"""The choice of how the result of a run is measured, by what is trained."""

from __future__ import annotations

from ..config import ResolvedConfig
from ..data.base import Dataset
from ..data.images.dataset import ImageDataset
from ..models.base import BaseModel
from ..models.language.model import LanguageBaseModel
from ..models.previews import Sampling
from .image_evaluation import ImageEvaluation
from .result_evaluation import ResultEvaluation
from .text_evaluation import TextEvaluation
from .validation import Validation


def evaluation_of(
    base_model: BaseModel,
    dataset: Dataset,
    config: ResolvedConfig,
    sampling: Sampling,
    validation: Validation | None,
) -> ResultEvaluation:
    """Return the measurement of the result that suits the base model and the dataset.

    Args:
        base_model: the base model that carries the adapters.
        dataset: the dataset that is trained.
        config: the settings of the run.
        sampling: the settings of the samples during training.
        validation: the measurement of the error; None if nothing is measured.
    """
    if isinstance(base_model, LanguageBaseModel):
        return TextEvaluation(base_model, dataset, config, validation)
    if isinstance(dataset, ImageDataset):
        return ImageEvaluation(base_model, dataset, config, sampling)
    return ResultEvaluation()
