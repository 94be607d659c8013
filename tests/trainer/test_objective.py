"""The objectives equal diffusers' schedulers, which are the reference."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from lora_crucible.base_models.base import RowLosses
from lora_crucible.base_models.diffusion import diffusion_losses, draw_noise
from lora_crucible.objective import Objective, draw_timestep, noisy_latent, prediction_from_denoised, row_losses, target


@pytest.fixture
def tensors():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 8, 8, generator=draw), torch.randn(3, 4, 8, 8, generator=draw)


@pytest.fixture
def scheduler():
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


TIMESTEPS = torch.tensor([3, 500, 990])


def sigmas(scheduler):
    signal = scheduler.alphas_cumprod[TIMESTEPS]
    return ((1 - signal) / signal).sqrt()


@pytest.mark.parametrize("objective", [Objective.EPSILON, Objective.VELOCITY])
def test_noisy_latent_is_that_of_ddpm(objective, tensors, scheduler):
    latent, noise = tensors
    sigma = sigmas(scheduler)
    scaled = noisy_latent(objective, latent, noise, sigma) / (sigma**2 + 1).sqrt().reshape(-1, 1, 1, 1)
    assert torch.allclose(scaled, scheduler.add_noise(latent, noise, TIMESTEPS), atol=1e-5)


def test_targets_of_noise_and_velocity(tensors, scheduler):
    latent, noise = tensors
    sigma = sigmas(scheduler)
    assert torch.equal(target(Objective.EPSILON, latent, noise, sigma), noise)
    velocity = scheduler.get_velocity(latent, noise, TIMESTEPS)
    assert torch.allclose(target(Objective.VELOCITY, latent, noise, sigma), velocity, atol=1e-5)


def test_flow_is_a_straight_line_from_latent_to_noise(tensors):
    latent, noise = tensors
    scheduler = FlowMatchEulerDiscreteScheduler()
    steps = scheduler.timesteps[[10, 500, 900]]
    sigma = steps / 1000
    noisy = noisy_latent(Objective.FLOW, latent, noise, sigma)
    assert torch.allclose(noisy, scheduler.scale_noise(latent, steps, noise), atol=1e-5)
    assert torch.equal(target(Objective.FLOW, latent, noise, sigma), noise - latent)


@pytest.mark.parametrize("objective", Objective)
def test_the_right_answer_denoises_to_the_latent(objective, tensors):
    """prediction -> denoised -> prediction, with the samplers' formulas written out."""
    latent, noise = tensors
    sigma = torch.tensor([0.1, 0.5, 0.9])
    wide = sigma.reshape(-1, 1, 1, 1)
    noisy = noisy_latent(objective, latent, noise, sigma)
    answer = target(objective, latent, noise, sigma)
    if objective is Objective.VELOCITY:
        denoised = noisy / (wide**2 + 1) - answer * wide / (wide**2 + 1).sqrt()
    else:
        denoised = noisy - wide * answer
    assert torch.allclose(denoised, latent, atol=1e-5)
    assert torch.allclose(prediction_from_denoised(objective, noisy, denoised, sigma), answer, atol=1e-4)


def test_timesteps_cover_what_they_should():
    draw = torch.Generator().manual_seed(0)
    steps = [draw_timestep(Objective.EPSILON, draw) for _ in range(4000)]
    assert all(step == int(step) for step in steps)
    assert min(steps) < 10
    assert max(steps) > 990
    assert abs(sum(steps) / len(steps) - 499.5) < 20
    flow = torch.tensor([draw_timestep(Objective.FLOW, draw) for _ in range(4000)])
    assert ((flow > 0) & (flow < 1)).all()
    logits = torch.logit(flow)
    assert abs(logits.mean()) < 0.05
    assert abs(logits.std() - 1) < 0.05


def test_a_rows_noise_depends_on_its_seed_alone():
    timesteps, noise = draw_noise(Objective.EPSILON, (4, 8, 8), [5, 6, 7])
    other_timesteps, other_noise = draw_noise(Objective.EPSILON, (4, 8, 8), [9, 6])
    assert torch.equal(noise[1], other_noise[1])
    assert timesteps[1] == other_timesteps[1]
    assert not torch.equal(noise[0], other_noise[0])


def test_loss_is_the_mean_squared_error_of_each_row(tensors):
    prediction, answer = tensors
    expected = torch.stack([((prediction[i] - answer[i]) ** 2).mean() for i in range(3)])
    assert torch.allclose(row_losses(prediction, answer), expected)


def test_a_model_that_answers_right_has_no_loss(tensors):
    latent, _ = tensors
    seeds = [1, 2, 3]
    _, noise = draw_noise(Objective.EPSILON, latent.shape[1:], seeds)
    losses = diffusion_losses(Objective.EPSILON, latent, seeds, lambda t: 0.1 + t / 1000, lambda *_: noise)
    assert torch.equal(losses.values, torch.zeros(3))


def test_fixed_timesteps_have_the_noise_of_drawn_ones(tensors):
    latent, _ = tensors
    seeds = [1, 2, 3]
    _, noise = draw_noise(Objective.FLOW, latent.shape[1:], seeds)
    seen = []

    def predict(noisy, sigma, timesteps):
        seen.append((noisy, sigma))
        return torch.zeros_like(noisy)

    losses = diffusion_losses(
        Objective.FLOW, latent, seeds, lambda t: t, predict, weights=[1, 2, 0.5], timesteps=[0.25, 0.5, 1.0]
    )
    assert losses.timesteps.tolist() == [0.25, 0.5, 1.0]
    assert torch.allclose(seen[0][0], noisy_latent(Objective.FLOW, latent, noise, seen[0][1]))
    assert torch.allclose(losses.values, losses.errors * torch.tensor([1, 2, 0.5]))
    timesteps, _ = draw_noise(Objective.EPSILON, latent.shape[1:], seeds, [0.0, 0.5, 1.0])
    assert timesteps.tolist() == [0, 500, 999]


def test_losses_of_several_batches_are_put_in_order():
    parts = [
        RowLosses(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0]), torch.tensor([0.1, 0.3])),
        RowLosses(torch.tensor([2.0]), torch.tensor([2.0]), torch.tensor([0.2])),
    ]
    joined = RowLosses.joined(parts, [0, 2, 1])
    assert joined.values.tolist() == [1, 2, 3]
    assert joined.timesteps.tolist() == pytest.approx([0.1, 0.2, 0.3])
