"""The training objective: what a diffusion model predicts, at which noise levels, and the loss of its prediction.

One convention for all models: a noisy latent is `latent + sigma * noise` for noise- and velocity-predicting models
(variance exploding, as in Karras et al. 2022, arXiv:2206.00364) and `(1 - sigma) * latent + sigma * noise` for flow
models. A model that expects the variance-preserving form divides by sqrt(sigma^2 + 1) itself.
"""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor
from torch.nn import functional as F

from ...config.objective_settings import LossType, ObjectiveSettings

TIMESTEPS = 1000
"""The number of timesteps of models that predict noise or velocity."""

LEAST_FLOW_TIMESTEP = 1e-4
"""The lowest timestep that is drawn for flow models, because computing a prediction from a denoised latent divides by
the noise level."""

MOST_SNR = 1000.0
"""The highest signal-to-noise ratio in the debiased weighting; that of images without noise would be infinite."""


class PredictionType(Enum):
    """The quantity that a model predicts."""

    EPSILON = "epsilon"
    """The noise (Ho et al. 2020, arXiv:2006.11239)."""
    VELOCITY = "v_prediction"
    """sqrt(a) * noise - sqrt(1 - a) * latent, with a the signal's share (Salimans & Ho 2022, arXiv:2202.00512)."""
    FLOW = "flow"
    """noise - latent (rectified flow, Liu et al. 2022, arXiv:2209.03003)."""


def draw_timestep(
    prediction_type: PredictionType,
    generator: torch.Generator,
    settings: ObjectiveSettings | None = None,
    shift: float = 1.0,
) -> float:
    """Draw a timestep: a whole number in 0..999 for epsilon and velocity, a number in (0, 1) for flow.

    The densities are those of Esser et al. 2024 (arXiv:2403.03206), section 3.1: logit-normal concentrates on the
    timesteps where a flow model's task is hardest, and mode is uniform with an emphasis. Without settings, epsilon and
    velocity are drawn uniformly and flow logit-normally.

    Args:
        shift: the shift of a flow model's timesteps (see `shifted`); ignored for the others.
    """
    settings = settings or ObjectiveSettings()
    flow = prediction_type is PredictionType.FLOW
    sampling = settings.timestep_sampling
    if sampling == "auto":
        sampling = "logit_normal" if flow else "uniform"
    if sampling == "uniform" and not flow:
        return float(torch.randint(TIMESTEPS, (), generator=generator))
    if sampling == "logit_normal":
        normal = torch.randn((), generator=generator) * settings.logit_std + settings.logit_mean
        share = float(torch.sigmoid(normal))
    else:
        share = float(torch.rand((), generator=generator))
        if sampling == "mode":
            share = 1 - share - settings.mode_scale * (math.cos(math.pi / 2 * share) ** 2 - 1 + share)
    if flow:
        return max(shifted(share, shift), LEAST_FLOW_TIMESTEP)
    return float(min(int(share * TIMESTEPS), TIMESTEPS - 1))


def shifted(timestep: float, shift: float) -> float:
    """Move a flow model's timestep in 0..1 towards noise, to `shift` times its odds (Esser et al. 2024, 5.3.2)."""
    return shift * timestep / (1 + (shift - 1) * timestep)


def shift_by_area(shift: float, pixels: float, native_pixels: float) -> float:
    """Return the shift for images of `pixels` pixels, for a model whose own `shift` is meant for `native_pixels`.

    A larger image needs more noise to become as unrecognisable, in proportion to its side (Esser et al. 2024, equation
    23). The result is never below 1, because a shift should not reduce the noise.
    """
    return max(1.0, shift * math.sqrt(pixels / native_pixels))


def flux_shift(log_shift: float, pixels: float) -> float:
    """Return the shift of Flux and related models, whose logarithm is linear in the number of 16 x 16 pixel tokens.

    Args:
        log_shift: the logarithm of the model's shift at 4096 tokens; at 256 it is 0.5 (Black Forest Labs' sampling
            code).
        pixels: the number of pixels of the images.
    """
    tokens = pixels / 256
    return math.exp(0.5 + (log_shift - 0.5) * (tokens - 256) / (4096 - 256))


def _per_row(sigma: Tensor, like: Tensor) -> Tensor:
    return sigma.to(like).reshape(-1, *[1] * (like.ndim - 1))


def noisy_latent(prediction_type: PredictionType, latent: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Add noise to a batch of latents.

    Args:
        latent: the clean latents, of shape (batch, channels, ...).
        noise: the noise, of the same shape.
        sigma: the noise level of each row, of shape (batch,).

    Returns:
        The noisy latents, of the same shape and dtype.
    """
    sigma = _per_row(sigma, latent)
    if prediction_type is PredictionType.FLOW:
        return torch.lerp(latent, noise, sigma)
    return latent + sigma * noise


def target(prediction_type: PredictionType, latent: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return what the model should predict for a batch; shapes are as in `noisy_latent`."""
    if prediction_type is PredictionType.EPSILON:
        return noise
    if prediction_type is PredictionType.FLOW:
        return noise - latent
    sigma = _per_row(sigma, latent)
    return (noise - sigma * latent) / (sigma**2 + 1) ** 0.5


def prediction_from_denoised(prediction_type: PredictionType, noisy: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """Return what a model predicted, given its estimate of the clean latent, which is the form that samplers use."""
    sigma = _per_row(sigma, noisy)
    if prediction_type is PredictionType.VELOCITY:
        return (noisy / (sigma**2 + 1) - denoised) * (sigma**2 + 1) ** 0.5 / sigma
    return (noisy - denoised) / sigma


def loss_weights(prediction_type: PredictionType, sigma: Tensor, settings: ObjectiveSettings) -> Tensor:
    """Return the weight of each row's squared error as float32, for noise levels of shape (batch,).

    With the signal-to-noise ratio SNR = 1 / sigma^2, noise predictions are weighted by min(SNR, gamma) / SNR (Hang et
    al. 2023, arXiv:2303.09556) or 1 / sqrt(SNR) (Yu et al. 2023, arXiv:2310.08442). The same error in the image gives a
    velocity prediction (SNR + 1) / SNR times the loss, so there the weight is divided by that.
    """
    if settings.loss_weighting in (None, "none"):
        return torch.ones_like(sigma, dtype=torch.float32)
    noise = sigma.float().square()
    if settings.loss_weighting == "min_snr":
        weight = (settings.min_snr_gamma * noise).clamp(max=1)
    else:
        weight = noise.clamp(min=1 / MOST_SNR).sqrt()
    return weight / (1 + noise) if prediction_type is PredictionType.VELOCITY else weight


def row_losses(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    loss_type: LossType = "mse",
    huber_delta: float = 1.0,
) -> Tensor:
    """Compute the mean error of each row in float32, for tensors of shape (batch, ...); the result has shape (batch,).

    With a mask of shape (batch, height, width) and values from 0 to 1, the mean is weighted by it. Huber is defined as
    in torch: half the square up to `huber_delta`, linear beyond.
    """
    prediction, target = prediction.float(), target.float()
    if loss_type == "huber":
        error = F.huber_loss(prediction, target, reduction="none", delta=huber_delta)
    else:
        error = (prediction - target).square() if loss_type == "mse" else (prediction - target).abs()
    if mask is None:
        return error.flatten(1).mean(1)
    weight = mask.reshape(mask.shape[0], *[1] * (error.ndim - 3), *mask.shape[1:]).expand_as(error)
    return (error * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)
