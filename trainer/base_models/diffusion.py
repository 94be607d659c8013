"""The loss of a diffusion model, the same for every kind of base model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..objective import Objective, draw_timestep, noisy_latent, row_losses, target
from ..rng import generator

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The model: (noisy latents, noise levels (rows,), timesteps (rows,)) to its prediction, shaped like the latents."""


def draw_noise(objective: Objective, shape: Sequence[int], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Timesteps (rows,) and noise (rows, *shape), float32 on the CPU; row i depends on seeds[i] alone."""
    draws = [generator(seed, "noise") for seed in seeds]
    timesteps = torch.tensor([draw_timestep(objective, draw) for draw in draws])
    return timesteps, torch.stack([torch.randn(*shape, generator=draw) for draw in draws])


def diffusion_losses(
    objective: Objective,
    latents: Tensor,
    seeds: Sequence[int],
    sigma_of: Callable[[Tensor], Tensor],
    predict: Predict,
    mask: Tensor | None = None,
) -> Tensor:
    """The loss of each row, (rows,), float32.

    Args:
        latents: clean latents (rows, channels, ...), float32, scaled as the model wants them.
        seeds: one per row.
        sigma_of: noise levels (rows,) of timesteps (rows,).
        mask: (rows, height, width), how much of the loss counts where; None is all of it everywhere.
    """
    timesteps, noise = draw_noise(objective, latents.shape[1:], seeds)
    timesteps, noise = timesteps.to(latents.device), noise.to(latents)
    sigma = sigma_of(timesteps)
    prediction = predict(noisy_latent(objective, latents, noise, sigma), sigma, timesteps)
    return row_losses(prediction, target(objective, latents, noise, sigma), mask)
