"""The loss of a diffusion model, the same for every kind of base model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..objective import TIMESTEPS, Objective, draw_timestep, noisy_latent, row_losses, target
from ..rng import generator
from .base import RowLosses

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The model: (noisy latents, noise levels (rows,), timesteps (rows,)) to its prediction, shaped like the latents."""


def draw_noise(
    objective: Objective, shape: Sequence[int], seeds: Sequence[int], timesteps: Sequence[float] | None = None
) -> tuple[Tensor, Tensor]:
    """Timesteps (rows,) and noise (rows, *shape), float32 on the CPU; row i depends on seeds[i] alone.

    Args:
        timesteps: as shares of the schedule, instead of drawn ones. The noise is the same with and without.
    """
    draws = [generator(seed, "noise") for seed in seeds]
    drawn = torch.tensor([draw_timestep(objective, draw) for draw in draws])
    noise = torch.stack([torch.randn(*shape, generator=draw) for draw in draws])
    if timesteps is not None:
        shares = torch.tensor(timesteps, dtype=torch.float32)
        drawn = shares if objective is Objective.FLOW else (shares * TIMESTEPS).floor().clamp(0, TIMESTEPS - 1)
    return drawn, noise


def diffusion_losses(
    objective: Objective,
    latents: Tensor,
    seeds: Sequence[int],
    sigma_of: Callable[[Tensor], Tensor],
    predict: Predict,
    mask: Tensor | None = None,
    weights: Sequence[float] | None = None,
    timesteps: Sequence[float] | None = None,
) -> RowLosses:
    """The loss of each row.

    Args:
        latents: clean latents (rows, channels, ...), float32, scaled as the model wants them.
        seeds: one per row.
        sigma_of: noise levels (rows,) of timesteps (rows,).
        mask: (rows, height, width), how much of the loss counts where; None is all of it everywhere.
        weights: of each row's loss.
        timesteps: as shares of the schedule, instead of drawn ones.
    """
    drawn, noise = draw_noise(objective, latents.shape[1:], seeds, timesteps)
    shares = drawn if objective is Objective.FLOW else drawn / TIMESTEPS
    drawn, noise = drawn.to(latents.device), noise.to(latents)
    sigma = sigma_of(drawn)
    prediction = predict(noisy_latent(objective, latents, noise, sigma), sigma, drawn)
    errors = row_losses(prediction, target(objective, latents, noise, sigma), mask)
    values = errors if weights is None else errors * torch.tensor(weights, device=errors.device)
    return RowLosses(values, errors.detach(), shares.to(errors))
