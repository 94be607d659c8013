"""The objectives agree with diffusers' schedulers, which are the reference."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_snr
from lora_crucible.config import ObjectiveSettings
from lora_crucible.models.diffusion.model import diffusion_losses, draw_noise
from lora_crucible.models.diffusion.objective import (
    PredictionType,
    draw_timestep,
    flux_shift,
    loss_weights,
    noisy_latent,
    prediction_from_denoised,
    row_losses,
    shift_by_area,
    shifted,
    target,
)
from lora_crucible.models.examples import RowLosses


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


@pytest.mark.parametrize("objective", [PredictionType.EPSILON, PredictionType.VELOCITY])
def test_noisy_latent_is_that_of_ddpm(objective, tensors, scheduler):
    latent, noise = tensors
    sigma = sigmas(scheduler)
    scaled = noisy_latent(objective, latent, noise, sigma) / (sigma**2 + 1).sqrt().reshape(-1, 1, 1, 1)
    assert torch.allclose(scaled, scheduler.add_noise(latent, noise, TIMESTEPS), atol=1e-5)


def test_targets_of_noise_and_velocity(tensors, scheduler):
    latent, noise = tensors
    sigma = sigmas(scheduler)
    assert torch.equal(target(PredictionType.EPSILON, latent, noise, sigma), noise)
    velocity = scheduler.get_velocity(latent, noise, TIMESTEPS)
    assert torch.allclose(target(PredictionType.VELOCITY, latent, noise, sigma), velocity, atol=1e-5)


def test_flow_is_a_straight_line_from_latent_to_noise(tensors):
    latent, noise = tensors
    scheduler = FlowMatchEulerDiscreteScheduler()
    steps = scheduler.timesteps[[10, 500, 900]]
    sigma = steps / 1000
    noisy = noisy_latent(PredictionType.FLOW, latent, noise, sigma)
    assert torch.allclose(noisy, scheduler.scale_noise(latent, steps, noise), atol=1e-5)
    assert torch.equal(target(PredictionType.FLOW, latent, noise, sigma), noise - latent)


@pytest.mark.parametrize("objective", PredictionType)
def test_the_right_answer_denoises_to_the_latent(objective, tensors):
    """The test goes from prediction to denoised and back, with the samplers' formulas written out."""
    latent, noise = tensors
    sigma = torch.tensor([0.1, 0.5, 0.9])
    wide = sigma.reshape(-1, 1, 1, 1)
    noisy = noisy_latent(objective, latent, noise, sigma)
    answer = target(objective, latent, noise, sigma)
    if objective is PredictionType.VELOCITY:
        denoised = noisy / (wide**2 + 1) - answer * wide / (wide**2 + 1).sqrt()
    else:
        denoised = noisy - wide * answer
    assert torch.allclose(denoised, latent, atol=1e-5)
    assert torch.allclose(prediction_from_denoised(objective, noisy, denoised, sigma), answer, atol=1e-4)


def test_timesteps_cover_what_they_should():
    draw = torch.Generator().manual_seed(0)
    steps = [draw_timestep(PredictionType.EPSILON, draw) for _ in range(4000)]
    assert all(step == int(step) for step in steps)
    assert min(steps) < 10
    assert max(steps) > 990
    assert abs(sum(steps) / len(steps) - 499.5) < 20
    flow = torch.tensor([draw_timestep(PredictionType.FLOW, draw) for _ in range(4000)])
    assert ((flow > 0) & (flow < 1)).all()
    logits = torch.logit(flow)
    assert abs(logits.mean()) < 0.05
    assert abs(logits.std() - 1) < 0.05


def test_a_rows_noise_depends_on_its_seed_alone():
    timesteps, noise = draw_noise(PredictionType.EPSILON, (4, 8, 8), [5, 6, 7])
    other_timesteps, other_noise = draw_noise(PredictionType.EPSILON, (4, 8, 8), [9, 6])
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
    _, noise = draw_noise(PredictionType.EPSILON, latent.shape[1:], seeds)
    losses = diffusion_losses(PredictionType.EPSILON, latent, seeds, lambda t: 0.1 + t / 1000, lambda *_: noise)
    assert torch.equal(losses.values, torch.zeros(3))


def test_fixed_timesteps_have_the_noise_of_drawn_ones(tensors):
    latent, _ = tensors
    seeds = [1, 2, 3]
    _, noise = draw_noise(PredictionType.FLOW, latent.shape[1:], seeds)
    seen = []

    def predict(noisy, sigma, timesteps):
        seen.append((noisy, sigma))
        return torch.zeros_like(noisy)

    losses = diffusion_losses(
        PredictionType.FLOW, latent, seeds, lambda t: t, predict, weights=[1, 2, 0.5], timesteps=[0.25, 0.5, 1.0]
    )
    assert losses.timesteps.tolist() == [0.25, 0.5, 1.0]
    assert torch.allclose(seen[0][0], noisy_latent(PredictionType.FLOW, latent, noise, seen[0][1]))
    assert torch.allclose(losses.values, losses.errors * torch.tensor([1, 2, 0.5]))
    timesteps, _ = draw_noise(PredictionType.EPSILON, latent.shape[1:], seeds, [0.0, 0.5, 1.0])
    assert timesteps.tolist() == [0, 500, 999]


def test_losses_of_several_batches_are_put_in_order():
    parts = [
        RowLosses(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0]), torch.tensor([0.1, 0.3])),
        RowLosses(torch.tensor([2.0]), torch.tensor([2.0]), torch.tensor([0.2])),
    ]
    joined = RowLosses.joined(parts, [0, 2, 1])
    assert joined.values.tolist() == [1, 2, 3]
    assert joined.timesteps.tolist() == pytest.approx([0.1, 0.2, 0.3])


def timesteps_of(objective, count=3000, shift=1.0, **settings):
    draw = torch.Generator().manual_seed(0)
    chosen = ObjectiveSettings(**settings)
    return torch.tensor([draw_timestep(objective, draw, chosen, shift) for _ in range(count)])


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        ({"timestep_sampling": "uniform"}, {"weighting_scheme": "none"}),
        (
            {"timestep_sampling": "logit_normal", "logit_mean": -0.5, "logit_std": 0.7},
            {"weighting_scheme": "logit_normal", "logit_mean": -0.5, "logit_std": 0.7},
        ),
        ({"timestep_sampling": "mode", "mode_scale": 1.29}, {"weighting_scheme": "mode", "mode_scale": 1.29}),
        ({"timestep_sampling": "mode", "mode_scale": -0.8}, {"weighting_scheme": "mode", "mode_scale": -0.8}),
    ],
)
def test_densities_of_timesteps_are_diffusers(settings, reference):
    draw = torch.Generator().manual_seed(0)
    expected = torch.cat(
        [compute_density_for_timestep_sampling(batch_size=1, generator=draw, **reference) for _ in range(200)]
    )
    assert torch.allclose(timesteps_of(PredictionType.FLOW, 200, **settings), expected, atol=1e-4)


@pytest.mark.parametrize("sampling", ["logit_normal", "mode"])
def test_noise_predictions_have_whole_timesteps_of_the_same_density(sampling):
    whole = timesteps_of(PredictionType.EPSILON, timestep_sampling=sampling)
    assert torch.equal(whole, whole.floor())
    assert 0 <= whole.min() <= whole.max() <= 999
    flow = timesteps_of(PredictionType.FLOW, timestep_sampling=sampling)
    assert torch.allclose(whole, (flow * 1000).floor(), atol=1)


def test_shift_multiplies_the_odds_of_noise():
    plain, moved = (timesteps_of(PredictionType.FLOW, 500, shift) for shift in (1.0, 3.0))
    odds = (plain / (1 - plain)).double()
    assert torch.allclose((moved / (1 - moved)).double(), 3 * odds, rtol=1e-2)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert shifted(0.5, 3.0) == pytest.approx(scheduler.sigmas[500].item(), abs=1e-3)


def test_shift_by_resolution():
    """For SD3 it is 3 at 1024 pixels and half of that at 512; for Flux, e^0.5 at 256 pixels and e^1.15 at 1024."""
    assert shift_by_area(3.0, 1024**2, 1024**2) == 3.0
    assert shift_by_area(3.0, 512**2, 1024**2) == 1.5
    assert shift_by_area(3.0, 64**2, 1024**2) == 1.0
    assert flux_shift(1.15, 1024**2) == pytest.approx(math.exp(1.15))
    assert flux_shift(1.15, 256**2) == pytest.approx(math.exp(0.5))


def test_defaults_draw_as_ever():
    """The same seed gives the same LoRA as in earlier versions."""
    timesteps, noise = draw_noise(PredictionType.EPSILON, (4, 8, 8), [5])
    from lora_crucible.seeding import generator

    draw = generator(5, "noise")
    assert timesteps[0] == torch.randint(1000, (), generator=draw)
    assert torch.equal(noise[0], torch.randn(4, 8, 8, generator=draw))


@pytest.mark.parametrize("weighting", ["min_snr", "debiased"])
def test_weights_are_those_of_the_papers(weighting, scheduler):
    """The reference uses diffusers' SNR; the loss of velocity is (SNR + 1) / SNR times that of noise."""
    steps = torch.arange(0, 1000, 7)
    snr = compute_snr(scheduler, steps)
    signal = scheduler.alphas_cumprod[steps]
    sigma = ((1 - signal) / signal).sqrt()
    settings = ObjectiveSettings(loss_weighting=weighting, min_snr_gamma=5.0)
    if weighting == "min_snr":
        clamped = torch.minimum(snr, torch.tensor(5.0))
        noise, velocity = clamped / snr, clamped / (snr + 1)
    else:
        noise = snr.clamp(max=1000).rsqrt()
        velocity = noise * snr / (snr + 1)
    assert torch.allclose(loss_weights(PredictionType.EPSILON, sigma, settings), noise, rtol=1e-3)
    assert torch.allclose(loss_weights(PredictionType.VELOCITY, sigma, settings), velocity, rtol=1e-3)


@pytest.mark.parametrize("weighting", ["min_snr", "debiased"])
def test_noise_and_velocity_predictions_weigh_the_same_error_alike(weighting, tensors):
    """The same wrong image has the same loss, whichever quantity the model predicts."""
    latent, noise = tensors
    sigma = torch.tensor([0.1, 1.0, 8.0])
    noisy = noisy_latent(PredictionType.EPSILON, latent, noise, sigma)
    settings = ObjectiveSettings(loss_weighting=weighting)
    costs = []
    for objective in (PredictionType.EPSILON, PredictionType.VELOCITY):
        wrong = prediction_from_denoised(objective, noisy, latent + 0.1, sigma)
        error = row_losses(wrong, target(objective, latent, noise, sigma))
        costs.append(error * loss_weights(objective, sigma, settings))
    assert torch.allclose(costs[0], costs[1], rtol=1e-2)


def test_huber_and_l1_are_torchs(tensors):
    prediction, answer = tensors
    for row in range(3):
        huber = torch.nn.functional.huber_loss(prediction[row], answer[row], delta=0.3)
        assert torch.allclose(row_losses(prediction, answer, None, "huber", 0.3)[row], huber)
        l1 = torch.nn.functional.l1_loss(prediction[row], answer[row])
        assert torch.allclose(row_losses(prediction, answer, None, "l1")[row], l1)


def test_masks_weigh_every_kind_of_loss(tensors):
    prediction, answer = tensors
    mask = torch.zeros(3, 8, 8)
    mask[:, 2:5] = 1
    for kind in ("mse", "huber", "l1"):
        inside = row_losses(prediction[:, :, 2:5], answer[:, :, 2:5], None, kind, 0.3)
        assert torch.allclose(row_losses(prediction, answer, mask, kind, 0.3), inside)


def test_noise_offset_moves_whole_channels():
    plain = draw_noise(PredictionType.EPSILON, (4, 8, 8), [1, 2])
    offset = draw_noise(PredictionType.EPSILON, (4, 8, 8), [1, 2], settings=ObjectiveSettings(noise_offset=0.5))
    alone = draw_noise(PredictionType.EPSILON, (4, 8, 8), [2], settings=ObjectiveSettings(noise_offset=0.5))
    assert torch.equal(plain[0], offset[0])
    difference = offset[1] - plain[1]
    means = difference.mean((2, 3), keepdim=True)
    assert torch.allclose(difference, means.expand_as(difference), atol=1e-5)
    assert 0.1 < means.std() < 1.5
    assert torch.equal(offset[1][1], alone[1][0])


def test_weighting_changes_what_is_trained_and_not_the_errors(tensors):
    latent, _ = tensors
    arguments = (PredictionType.EPSILON, latent, [1, 2, 3], lambda t: 0.1 + t / 1000, lambda noisy, *_: noisy / 2)
    plain = diffusion_losses(*arguments)
    for settings in ({"loss_weighting": "min_snr", "min_snr_gamma": 1.0}, {"loss_type": "l1"}, {"loss_type": "huber"}):
        other = diffusion_losses(*arguments, settings=ObjectiveSettings(**settings))
        assert torch.equal(other.errors, plain.errors)
        assert not torch.allclose(other.values, plain.values)
    weighted = diffusion_losses(*arguments, settings=ObjectiveSettings(loss_weighting="min_snr", min_snr_gamma=1.0))
    sigma = 0.1 + plain.timesteps
    assert torch.allclose(weighted.values, plain.values * (sigma**2).clamp(max=1), rtol=1e-4)
