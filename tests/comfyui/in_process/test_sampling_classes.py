"""The training objectives are the inverse of ComfyUI's sampling classes."""

from __future__ import annotations

import math

import comfy.model_base
import comfy.supported_models
import models
import pytest
import torch
from comfy.model_base import ModelType
from lora_crucible.config import ObjectiveSettings
from lora_crucible.errors import CrucibleError
from lora_crucible.models.comfyui.shifting import own_shift
from lora_crucible.models.comfyui.support import objective_of
from lora_crucible.models.diffusion.objective import (
    PredictionType,
    noisy_latent,
    prediction_from_denoised,
    shifted,
    target,
)
from tiny_architectures import TINY

KINDS = {
    ModelType.EPS: PredictionType.EPSILON,
    ModelType.V_PREDICTION: PredictionType.VELOCITY,
    ModelType.FLOW: PredictionType.FLOW,
    ModelType.FLUX: PredictionType.FLOW,
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
    if objective is not PredictionType.FLOW:
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


@pytest.mark.parametrize(
    ("config", "kind", "side", "shift"),
    [
        (comfy.supported_models.SD3, ModelType.FLOW, 1024, 3.0),
        (comfy.supported_models.SD3, ModelType.FLOW, 512, 1.5),
        (comfy.supported_models.Flux, ModelType.FLUX, 1024, math.exp(1.15)),
        (comfy.supported_models.Flux, ModelType.FLUX, 256, math.exp(0.5)),
    ],
)
def test_timesteps_are_shifted_as_the_model_samples(config, kind, side, shift):
    model_sampling = comfy.model_base.model_sampling(config({"in_channels": 16}), kind)
    found = own_shift(model_sampling, side**2, 1024**2)
    assert found == pytest.approx(shift)
    if side == 1024:  # the sigma halfway through ComfyUI's schedule
        assert shifted(0.5, found) == pytest.approx(float(model_sampling.percent_to_sigma(0.5)), rel=1e-5)


def test_losses_of_a_flow_model_are_drawn_with_the_shift():
    model, samples = TINY["flux1"].model(), TINY["flux1"].samples(1)  # 8 x 8 latents
    base_model = models.base_model(model)
    timesteps = {}
    for shift in (None, 1.0, 3.0):
        base_model.prepare_losses(ObjectiveSettings(timestep_shift=shift))
        with base_model.session("fp32"), torch.no_grad():
            timesteps[shift] = base_model.losses(samples, [1]).timesteps.item()
    for shift in (None, 3.0):
        expected = base_model.own_shift(64 * 64) if shift is None else shift
        assert timesteps[shift] == pytest.approx(shifted(timesteps[1.0], expected), rel=1e-4)
    assert base_model.own_shift(64 * 64) > 1.2
