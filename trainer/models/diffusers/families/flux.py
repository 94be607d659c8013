"""Flux.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...previews import Sampling
from .base import Config, Encoded, contexts, pooled
from .flow import FlowFamily

GUIDANCE = 3.5
"""The guidance that FLUX.1 dev is given as an input, in training and for samples: its usual value, and ComfyUI's for
graphs that do not set it."""


class Flux(FlowFamily):
    """FLUX.1 dev and models with its layout."""

    pipeline = "FluxPipeline"
    architectures = ("flux1",)
    text_encoders = ("text_encoder", "text_encoder_2")
    packed = 4

    def distilled(self, denoiser: Config, scheduler: Config) -> str:
        return "" if denoiser.get("guidance_embeds") else "the layout of FLUX.1 schnell (no guidance embedding)"

    def encode(self, pipeline: Any, text: str, device: torch.device) -> Encoded:
        embedding, pooled_embedding, _ = pipeline.encode_prompt(text, device=device)
        return embedding[0], pooled_embedding[0]

    def predict(
        self, pipeline: Any, noisy: Tensor, sigma: Tensor, drawn: Tensor, captions: Sequence[Encoded]
    ) -> Tensor:
        context = contexts(captions)
        rows, channels, height, width = noisy.shape
        places = (context.device, context.dtype)
        prediction = pipeline.transformer(
            hidden_states=pipeline._pack_latents(noisy, rows, channels, height, width).to(context.dtype),
            timestep=sigma,
            guidance=torch.full_like(sigma, GUIDANCE) if pipeline.transformer.config.guidance_embeds else None,
            encoder_hidden_states=context,
            pooled_projections=pooled(captions),
            txt_ids=torch.zeros(context.shape[1], 3).to(*places),
            img_ids=pipeline._prepare_latent_image_ids(rows, height // 2, width // 2, *places),
        ).sample
        factor = pipeline.vae_scale_factor
        unpacked: Tensor = pipeline._unpack_latents(prediction, height * factor, width * factor, factor)
        return unpacked

    def draw(self, pipeline: Any, positive: Encoded, negative: Encoded, sampling: Sampling, shared: Config) -> Tensor:
        picture: Tensor = pipeline(
            prompt_embeds=contexts([positive]),
            pooled_prompt_embeds=pooled([positive]),
            negative_prompt_embeds=contexts([negative]),
            negative_pooled_prompt_embeds=pooled([negative]),
            guidance_scale=GUIDANCE,
            true_cfg_scale=sampling.cfg,
            **shared,
        ).images
        return picture
