"""The settings of the objective, as a diffusion model applies them."""

from __future__ import annotations

import pytest
from lora_crucible.config import ObjectiveSettings
from lora_crucible.errors import CrucibleError
from lora_crucible.models.diffusion.model import DiffusionBaseModel
from lora_crucible.models.diffusion.objective import PredictionType


class Model(DiffusionBaseModel):
    name, native_resolution = "Some model", 1024

    def __init__(self, prediction_type: PredictionType) -> None:
        self.prediction_type = prediction_type

    def own_shift(self, pixels: float) -> float:
        return 3.0 * (pixels / 1024**2) ** 0.5


Model.__abstractmethods__ = frozenset()  # the tests need only some of the methods


@pytest.mark.parametrize("weighting", ["min_snr", "debiased"])
def test_flow_models_refuse_weightings_of_noise_predictions(weighting):
    with pytest.raises(CrucibleError, match=rf"loss_weighting is {weighting}, but Some model is a flow model.*none"):
        Model(PredictionType.FLOW).prepare_losses(ObjectiveSettings(loss_weighting=weighting))
    velocity = Model(PredictionType.VELOCITY)
    velocity.prepare_losses(ObjectiveSettings(loss_weighting=weighting))
    assert velocity.objective_settings.loss_weighting == weighting


def test_only_flow_models_are_shifted():
    with pytest.raises(CrucibleError, match="timestep_shift is 2, but Some model predicts epsilon"):
        Model(PredictionType.EPSILON).prepare_losses(ObjectiveSettings(timestep_shift=2))
    model = Model(PredictionType.FLOW)
    assert model.prepare_losses(ObjectiveSettings(timestep_shift=2)) == {}
    assert model.shift(512**2) == 2


def test_a_shift_that_is_left_on_auto_is_chosen_and_explained():
    model = Model(PredictionType.FLOW)
    reasons = model.prepare_losses(ObjectiveSettings())
    assert reasons["timestep_shift"].startswith("3 at 1024 x 1024 pixels: ")
    assert model.shift(512**2) == 1.5
    assert Model(PredictionType.EPSILON).prepare_losses(ObjectiveSettings()) == {}
