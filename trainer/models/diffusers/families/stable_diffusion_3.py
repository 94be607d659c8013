"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...previews import Sampling
from .base import Config, Encoded, contexts, pooled
from .flow import FlowFamily


class StableDiffusion3(FlowFamily):
    """Stable Diffusion 3 and 3.5, with two CLIP text encoders and a T5, which may be missing."""

    pipeline = "StableDiffusion3Pipeline"
    architectures = ("sd3",)
    text_encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")

    def encode(self, pipeline: Any, text: str, device: torch.device) -> Encoded:
        embedding, _, pooled_embedding, _ = pipeline.encode_prompt(
            text, None, None, device=device, do_classifier_free_guidance=False
        )
        return embedding[0], pooled_embedding[0]

    def predict(
        self, pipeline: Any, noisy: Tensor, sigma: Tensor, drawn: Tensor, captions: Sequence[Encoded]
    ) -> Tensor:
        context = contexts(captions)
        prediction: Tensor = pipeline.transformer(
            hidden_states=noisy.to(context.dtype),
            timestep=sigma * 1000,
            encoder_hidden_states=context,
            pooled_projections=pooled(captions),
        ).sample
        return prediction

    def draw(self, pipeline: Any, positive: Encoded, negative: Encoded, sampling: Sampling, shared: Config) -> Tensor:
        picture: Tensor = pipeline(
            prompt_embeds=contexts([positive]),
            negative_prompt_embeds=contexts([negative]),
            pooled_prompt_embeds=pooled([positive]),
            negative_pooled_prompt_embeds=pooled([negative]),
            guidance_scale=sampling.cfg,
            **shared,
        ).images
        return picture
