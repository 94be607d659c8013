"""What the VAEs of diffusers make of an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def image_latent(vae: Any, pixels: Tensor) -> Tensor:
    """Encode an image (1, 3, height, width) in -1..1 to a latent (channels, height, width), shifted and scaled."""
    latent: Tensor = vae.encode(pixels).latent_dist.mode()[0]
    if shift := vae.config.get("shift_factor"):
        latent = latent - shift
    return latent * vae.config.scaling_factor


def frame_latent(vae: Any, pixels: Tensor) -> Tensor:
    """Encode an image (1, 3, height, width) in -1..1 as a video of one frame to a latent (channels, 1, height, width),
    normalized by channel."""
    latent: Tensor = vae.encode(pixels.unsqueeze(2)).latent_dist.mode()[0]
    mean, deviation = (
        torch.tensor(values).view(-1, 1, 1, 1).to(latent)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return (latent - mean) / deviation
