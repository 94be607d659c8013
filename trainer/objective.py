"""What a diffusion model is asked to predict, and the loss of its answer.

One convention for all models: a noisy latent is `latent + sigma * noise` for noise- and velocity-predicting models
(variance exploding, as in Karras et al. 2022, arXiv:2206.00364) and `(1 - sigma) * latent + sigma * noise` for flow
models. A model that wants the variance-preserving form divides by sqrt(sigma^2 + 1) itself.
"""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

TIMESTEPS = 1000


class Objective(Enum):
    """The quantity a model predicts."""

    EPSILON = "epsilon"
    """The noise (Ho et al. 2020, arXiv:2006.11239)."""
    VELOCITY = "v_prediction"
    """sqrt(a) * noise - sqrt(1 - a) * latent, with a the signal's share (Salimans & Ho 2022, arXiv:2202.00512)."""
    FLOW = "flow"
    """noise - latent (rectified flow, Liu et al. 2022, arXiv:2209.03003)."""


def draw_timestep(objective: Objective, generator: torch.Generator) -> float:
    """One timestep: a whole number in 0..999, uniform, for epsilon and velocity; in (0, 1), logit-normal, for flow.

    The logit-normal draw spends most steps where a flow model's task is hardest (Esser et al. 2024, arXiv:2403.03206,
    section 3.1).
    """
    if objective is Objective.FLOW:
        return float(torch.sigmoid(torch.randn((), generator=generator)))
    return float(torch.randint(TIMESTEPS, (), generator=generator))


def _per_row(sigma: Tensor, like: Tensor) -> Tensor:
    return sigma.to(like).reshape(-1, *[1] * (like.ndim - 1))


def noisy_latent(objective: Objective, latent: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """`latent` and `noise` (batch, channels, ...) at noise level `sigma` (batch,); same shape and dtype."""
    sigma = _per_row(sigma, latent)
    if objective is Objective.FLOW:
        return torch.lerp(latent, noise, sigma)
    return latent + sigma * noise


def target(objective: Objective, latent: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The right answer for a batch; shapes as in `noisy_latent`."""
    if objective is Objective.EPSILON:
        return noise
    if objective is Objective.FLOW:
        return noise - latent
    sigma = _per_row(sigma, latent)
    return (noise - sigma * latent) / (sigma**2 + 1) ** 0.5


def prediction_from_denoised(objective: Objective, noisy: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
    """What the model predicted, from its estimate of the clean latent (the form in which samplers want it)."""
    sigma = _per_row(sigma, noisy)
    if objective is Objective.VELOCITY:
        return (noisy / (sigma**2 + 1) - denoised) * (sigma**2 + 1) ** 0.5 / sigma
    return (noisy - denoised) / sigma


def row_losses(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error of each row in float32: (batch, ...) and (batch, ...) to (batch,).

    With a mask (batch, height, width) of values from 0 to 1, the mean is weighted by it.
    """
    error = (prediction.float() - target.float()).square()
    if mask is None:
        return error.flatten(1).mean(1)
    weight = mask.reshape(mask.shape[0], *[1] * (error.ndim - 3), *mask.shape[1:]).expand_as(error)
    return (error * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)
