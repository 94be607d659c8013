"""The loss of diffusion models, which is the same for every kind of base model."""

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
"""A function that maps (noisy latents, noise levels (rows,), timesteps (rows,)) to the model's prediction, which has
the shape of the latents."""

PLAIN = ObjectiveSettings()
"""The default settings of the objective, with an unweighted squared error."""


class DiffusionBaseModel(BaseModel):
    """A base model that is trained to remove noise.

    Attributes:
        native_resolution: the side length in pixels of the images that the model was made for.
        prediction_type: the quantity that the model predicts.
        objective_settings: the settings that losses are computed with.
    """

    # Low noise levels measure detail, high ones composition.
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
        """Return the shift of timesteps towards noise that the model samples with, for images of `pixels` pixels.

        A shift of 1 changes nothing.
        """

    def shift(self, pixels: float) -> float:
        """Return the shift of timesteps for images of `pixels` pixels: that of the settings, or the model's own."""
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
    """Draw timesteps and noise; row i depends only on seeds[i].

    Args:
        prediction_type: the quantity that the model predicts.
        shape: the shape of a latent, channels first.
        seeds: one seed per row.
        timesteps: timesteps to use instead of drawn ones, as shares of the schedule; they do not affect the noise.
        settings: the settings of the objective.
        shift: the shift of a flow model's drawn timesteps.

    Returns:
        The timesteps (rows,) and the noise (rows, *shape), float32 on the CPU.
    """
    draws = [generator(seed, "noise") for seed in seeds]
    drawn = torch.tensor([draw_timestep(prediction_type, draw, settings, shift) for draw in draws])
    noise = torch.stack([torch.randn(*shape, generator=draw) for draw in draws])
    if settings.noise_offset:
        # One number per channel, so that the brightness and tint of the whole image vary too (Guttenberg 2023,
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
    """Compute the loss of each row.

    Args:
        prediction_type: the quantity that the model predicts.
        latents: the clean latents (rows, channels, ...), float32, scaled as the model expects them.
        seeds: one seed per row.
        sigma_of: a function that returns the noise levels (rows,) of timesteps (rows,).
        predict: a function that returns the model's prediction.
        mask: the weight of the loss at each position, (rows, height, width), from 0 to 1; None weights all equally.
        weights: a factor on the loss of each row.
        timesteps: timesteps to use instead of drawn ones, as shares of the schedule.
        settings: the settings of the objective.
        shift: the shift of a flow model's drawn timesteps.
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
