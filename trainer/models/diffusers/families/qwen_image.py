"""Qwen-Image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...previews import Sampling
from .base import Config, Encoded, contexts
from .flow import FlowFamily
from .latents import frame_latent


class QwenImage(FlowFamily):
    """Qwen-Image, whose VAE sees an image as a video of one frame."""

    pipeline = "QwenImagePipeline"
    architectures = ("qwen_image",)
    text_encoders = ("text_encoder",)
    packed = 4

    def encode(self, pipeline: Any, text: str, device: torch.device) -> Encoded:
        embedding, _ = pipeline.encode_prompt(text, device=device)
        return embedding[0], None

    def latent(self, vae: Any, pixels: Tensor) -> Tensor:
        return frame_latent(vae, pixels)

    def predict(
        self, pipeline: Any, noisy: Tensor, sigma: Tensor, drawn: Tensor, captions: Sequence[Encoded]
    ) -> Tensor:
        context = contexts(captions)
        rows, channels, _, height, width = noisy.shape
        prediction = pipeline.transformer(
            hidden_states=pipeline._pack_latents(noisy, rows, channels, height, width).to(context.dtype),
            timestep=sigma,
            encoder_hidden_states=context,
            img_shapes=[[(1, height // 2, width // 2)]] * rows,
        ).sample
        factor = pipeline.vae_scale_factor
        unpacked: Tensor = pipeline._unpack_latents(prediction, height * factor, width * factor, factor)
        return unpacked

    def draw(self, pipeline: Any, positive: Encoded, negative: Encoded, sampling: Sampling, shared: Config) -> Tensor:
        picture: Tensor = pipeline(
            prompt_embeds=contexts([positive]),
            negative_prompt_embeds=contexts([negative]),
            true_cfg_scale=sampling.cfg,
            **shared,
        ).images
        return picture
