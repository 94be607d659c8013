"""Our objectives are the inverse of ComfyUI's sampling classes."""

from __future__ import annotations

import comfy.model_base
import comfy.supported_models
import pytest
import torch
from comfy.model_base import ModelType
from lora_crucible.base_models.comfyui.support import objective_of
from lora_crucible.errors import CrucibleError
from lora_crucible.objective import Objective, noisy_latent, prediction_from_denoised, target

KINDS = {
    ModelType.EPS: Objective.EPSILON,
    ModelType.V_PREDICTION: Objective.VELOCITY,
    ModelType.FLOW: Objective.FLOW,
    ModelType.FLUX: Objective.FLOW,
}


def sampling(kind: ModelType):
    return comfy.model_base.model_sampling(comfy.supported_models.SD15({"in_channels": 4}), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_objective_of_each_kind(kind):
    model_sampling = sampling(kind)
    objective = objective_of(model_sampling)
    assert objective is KINDS[kind]
    draw = torch.Generator().manual_seed(0)
    latent, noise, prediction = torch.randn(3, 5, 4, 8, 8, generator=draw).unbind()
    sigma = torch.tensor([0.05, 0.2, 0.5, 0.8, 0.99])
    if objective is not Objective.FLOW:
        sigma = model_sampling.sigma(torch.tensor([5.0, 100.0, 400.0, 700.0, 999.0]))

    noisy = noisy_latent(objective, latent, noise, sigma)
    assert torch.allclose(noisy, model_sampling.noise_scaling(sigma, noise.clone(), latent), rtol=1e-5, atol=1e-5)
    denoised = model_sampling.calculate_denoised(sigma, prediction, noisy)
    back = prediction_from_denoised(objective, noisy, denoised, sigma)
    assert torch.allclose(back, prediction, rtol=1e-3, atol=1e-3)
    perfect = model_sampling.calculate_denoised(sigma, target(objective, latent, noise, sigma), noisy)
    assert torch.allclose(perfect, latent, rtol=1e-3, atol=1e-3)


def test_other_kinds_are_refused_by_name():
    with pytest.raises(CrucibleError, match="EDM"):
        objective_of(sampling(ModelType.V_PREDICTION_EDM))
