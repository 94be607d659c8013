"""Sampling with ComfyUI's own sampler, with the same result as Empty Latent Image, KSampler and VAE Decode."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.sample
import torch
from torch import Tensor

from ..base import Sampling


def sample_picture(patcher: Any, vae: Any, positive: list[Any], negative: list[Any], sampling: Sampling) -> Tensor:
    """Draw one sample.

    Returns:
        The sample (1, height, width, 3), float32 in 0..1, on the CPU.
    """
    channels = patcher.get_model_object("latent_format").latent_channels
    factor = vae.spacial_compression_encode()
    empty = torch.zeros(
        [1, channels, sampling.height // factor, sampling.width // factor],
        device=comfy.model_management.intermediate_device(),
    )
    latent = comfy.sample.fix_empty_latent_channels(patcher, empty)
    # The sampler seeds the global generator; the random numbers of the training must not change.
    with torch.random.fork_rng():
        noise = comfy.sample.prepare_noise(latent, sampling.seed)
        latent = comfy.sample.sample(
            patcher,
            noise,
            sampling.steps,
            sampling.cfg,
            sampling.sampler,
            sampling.scheduler,
            positive,
            negative,
            latent,
            disable_pbar=True,
            seed=sampling.seed,
        )
    pictures = vae.decode(latent)
    if pictures.ndim == 5:  # video VAEs: (batch, frames, height, width, 3)
        pictures = pictures.reshape(-1, *pictures.shape[-3:])
    return pictures.to("cpu", torch.float32)
