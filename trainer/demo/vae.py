"""Training of the demo model's VAE, which maps 64 x 64 pixels to 4 x 8 x 8 latents and back."""

from __future__ import annotations

import logging
import time

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from . import shapes
from .muon import Optimizer

LOG = logging.getLogger(__name__)

SCALING_FACTOR = 0.18215
"""SD1.5's scaling factor; latents multiplied by it have a standard deviation of about one."""

KL_WEIGHT = 2e-4
"""The weight of the KL divergence in the loss."""


def new_vae() -> AutoencoderKL:
    """Return an untrained VAE of SD1.5's architecture (factor 8, 4 latent channels, 32 norm groups), 0.9 M parameters.

    It has one wide layer per resolution rather than two narrow ones: SD's 32 norm groups over 32 channels would
    normalize every channel by itself and thereby remove its mean and scale.
    """
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(64, 64, 64, 64),
        layers_per_block=0,
        latent_channels=4,
        norm_num_groups=32,
        sample_size=shapes.IMAGE_SIZE,
        scaling_factor=SCALING_FACTOR,
    )
    with torch.no_grad():
        # The second half of the channels are the log variances. Too much latent noise at the start hides the means.
        vae.quant_conv.weight[4:].mul_(0.1)
        vae.quant_conv.bias[4:].fill_(-6.0)
    return vae


def to_pixels(scenes: list[shapes.Scene]) -> Tensor:
    """Draw the scenes as a float tensor (N, 3, H, W) in -1..1."""
    pictures = np.stack([np.asarray(shapes.draw(scene)) for scene in scenes])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def edges(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the differences between neighbouring pixels, along x and along y."""
    return pixels[..., 1:] - pixels[..., :-1], pixels[..., 1:, :] - pixels[..., :-1, :]


def train_vae(seed: int, steps: int = 1200, batch_size: int = 8, pictures: int = 6000) -> AutoencoderKL:
    """Train the VAE on every style, even the new one: like SD's, it encodes images that the UNet has not learned."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    random = np.random.default_rng(seed)
    styles = list(shapes.PAINTERS)
    scenes = [shapes.random_scene(random, styles[index % len(styles)]) for index in range(pictures)]
    pixels = to_pixels(scenes)

    vae = new_vae()
    optimizer = Optimizer(vae, steps, matrix_rate=0.02, vector_rate=2e-3)
    start = time.monotonic()
    for step in range(steps):
        batch = pixels[torch.randint(0, pictures, (batch_size,), generator=generator)]
        posterior = vae.encode(batch).latent_dist
        decoded = vae.decode(posterior.sample(generator)).sample
        difference = decoded - batch
        # Edges have a loss of their own, because the mean error tolerates blurred outlines. Its weight grows with the
        # steps, because early on it would outweigh the mean error.
        along_x, along_y = edges(difference)
        edge_error = along_x.abs().mean() + along_y.abs().mean()
        loss = 3 * difference.square().mean() + difference.abs().mean() + step / steps * edge_error
        optimizer.step(loss + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel())
        if step % 50 == 49:
            LOG.info(
                "vae %d/%d error %.4f edges %.4f noise %.3f %.0f s",
                step + 1,
                steps,
                difference.detach().abs().mean(),
                edge_error.detach(),
                posterior.std.detach().mean() / posterior.mean.detach().std(),
                time.monotonic() - start,
            )
    vae.eval().requires_grad_(False)
    normalize_latents(vae, encode(vae, pixels[:1024]))
    return vae


@torch.inference_mode()
def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Encode images (N, 3, 64, 64) in -1..1 as mean latents (N, 4, 8, 8), without the scaling factor."""
    return torch.cat([vae.encode(batch).latent_dist.mean for batch in pixels.split(64)]).clone()


@torch.no_grad()
def normalize_latents(vae: AutoencoderKL, latents: Tensor) -> None:
    """Fold a scale and a shift per channel into the two 1x1 convolutions around the latents.

    ComfyUI multiplies SD1.5's latents by the constant 0.18215, so the latents themselves must have the right scale:
    afterwards `latents` (N, 4, H, W), encoded again, have mean 0 and standard deviation 1 / 0.18215.
    """
    mean = latents.mean(dim=(0, 2, 3))
    scale = latents.std(dim=(0, 2, 3)) * SCALING_FACTOR
    channels = len(mean)
    to_latent, from_latent = vae.quant_conv, vae.post_quant_conv
    to_latent.bias[:channels].sub_(mean).div_(scale)
    to_latent.weight[:channels].div_(scale[:, None, None, None])
    to_latent.bias[channels:].sub_(2 * scale.log())  # the log variances
    from_latent.bias.add_(from_latent.weight[:, :, 0, 0] @ mean)
    from_latent.weight.mul_(scale[None, :, None, None])
