"""The loss of a diffusion model, the same for every kind of base model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...config import ModelFacts, ObjectiveSettings
from ...errors import CrucibleError
from ...seeding import generator
from ..base import BaseModel
from ..examples import RowLosses
from .objective import (
    TIMESTEPS,
    PredictionType,
    draw_timestep,
    loss_weights,
    noisy_latent,
    row_losses,
    target,
)

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The model: (noisy latents, noise levels (rows,), timesteps (rows,)) to its prediction, shaped like the latents."""

PLAIN = ObjectiveSettings()


class DiffusionBaseModel(BaseModel):
    """A base model that is trained to remove noise.

    Attributes:
        native_resolution: the side length, in pixels, of the images that it was made for.
        prediction_type: what it predicts.
    """

    # Little noise shows detail, much noise composition.
    measured_timesteps = (0.1, 0.3, 0.5, 0.7, 0.9)
    native_resolution: int
    prediction_type: PredictionType
    objective_settings: ObjectiveSettings = PLAIN

    @property
    def facts(self) -> ModelFacts:
        architecture = self.architecture
        return ModelFacts(architecture.id, self.native_resolution, architecture.cfg, self.prediction_type.value)

    @abstractmethod
    def own_shift(self, pixels: float) -> float:
        """How far this model's own sampling moves timesteps towards noise for images of `pixels`; 1 is not at all."""

    def shift(self, pixels: float) -> float:
        """The shift of timesteps for images of `pixels`."""
        given = self.objective_settings.timestep_shift
        return self.own_shift(pixels) if given is None else given

    def prepare_losses(self, settings: ObjectiveSettings) -> dict[str, str]:
        flow = self.prediction_type is PredictionType.FLOW
        if flow and settings.loss_weighting not in (None, "none"):
            raise CrucibleError(
                f"loss_weighting is {settings.loss_weighting}, but {self.name} is a flow model. This weighting is made "
                "for models that predict noise or velocity and would give a flow model's loss the wrong balance. Set "
                "loss_weighting to none; what a flow model learns most is chosen with timestep_sampling and "
                "timestep_shift."
            )
        if not flow and settings.timestep_shift not in (None, 1.0):
            raise CrucibleError(
                f"timestep_shift is {settings.timestep_shift:g}, but {self.name} predicts "
                f"{self.prediction_type.value}, and only the noise levels of flow models are shifted. Leave "
                "timestep_shift on auto; noise levels of this model are chosen with timestep_sampling and "
                "loss_weighting."
            )
        self.objective_settings = settings
        if not flow or settings.timestep_shift is not None:
            return {}
        side = self.native_resolution
        return {"timestep_shift": f"{self.shift(side**2):.3g} at {side} x {side} pixels: as the model samples"}


def draw_noise(
    prediction_type: PredictionType,
    shape: Sequence[int],
    seeds: Sequence[int],
    timesteps: Sequence[float] | None = None,
    settings: ObjectiveSettings = PLAIN,
    shift: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Timesteps (rows,) and noise (rows, *shape), float32 on the CPU; row i depends on seeds[i] alone.

    Args:
        shape: channels first.
        timesteps: as shares of the schedule, instead of drawn ones. The noise is the same with and without.
        shift: of a flow model's drawn timesteps.
    """
    draws = [generator(seed, "noise") for seed in seeds]
    drawn = torch.tensor([draw_timestep(prediction_type, draw, settings, shift) for draw in draws])
    noise = torch.stack([torch.randn(*shape, generator=draw) for draw in draws])
    if settings.noise_offset:
        # One number per channel, so that brightness and tint of the whole image are noisy too (Guttenberg 2023,
        # https://www.crosslabs.org/blog/diffusion-with-offset-noise).
        means = [torch.randn(shape[0], *[1] * (len(shape) - 1), generator=draw) for draw in draws]
        noise += settings.noise_offset * torch.stack(means)
    if timesteps is not None:
        shares = torch.tensor(timesteps, dtype=torch.float32)
        drawn = (
            shares if prediction_type is PredictionType.FLOW else (shares * TIMESTEPS).floor().clamp(0, TIMESTEPS - 1)
        )
    return drawn, noise


def diffusion_losses(
    prediction_type: PredictionType,
    latents: Tensor,
    seeds: Sequence[int],
    sigma_of: Callable[[Tensor], Tensor],
    predict: Predict,
    mask: Tensor | None = None,
    weights: Sequence[float] | None = None,
    timesteps: Sequence[float] | None = None,
    settings: ObjectiveSettings = PLAIN,
    shift: float = 1.0,
) -> RowLosses:
    """The loss of each row.

    Args:
        latents: clean latents (rows, channels, ...), float32, scaled as the model wants them.
        seeds: one per row.
        sigma_of: noise levels (rows,) of timesteps (rows,).
        mask: (rows, height, width), how much of the loss counts where; None is all of it everywhere.
        weights: of each row's loss.
        timesteps: as shares of the schedule, instead of drawn ones.
        shift: of a flow model's drawn timesteps.
    """
    drawn, noise = draw_noise(prediction_type, latents.shape[1:], seeds, timesteps, settings, shift)
    shares = drawn if prediction_type is PredictionType.FLOW else drawn / TIMESTEPS
    drawn, noise = drawn.to(latents.device), noise.to(latents)
    sigma = sigma_of(drawn)
    prediction = predict(noisy_latent(prediction_type, latents, noise, sigma), sigma, drawn)
    answer = target(prediction_type, latents, noise, sigma)
    values = row_losses(prediction, answer, mask, settings.loss_type, settings.huber_delta)
    errors = values.detach()
    if settings.loss_type != "mse":
        errors = row_losses(prediction.detach(), answer, mask)
    if settings.loss_weighting not in (None, "none"):
        values = values * loss_weights(prediction_type, sigma, settings)
    if weights is not None:
        values = values * torch.tensor(weights, device=values.device)
    return RowLosses(values, errors, shares.to(errors))
