"""Z-Image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...previews import Sampling
from .base import Config, Encoded
from .flow import FlowFamily


class ZImage(FlowFamily):
    """Z-Image, whose time runs from noise to image and whose prediction has the opposite sign."""

    pipeline = "ZImagePipeline"
    architectures = ("z_image",)
    text_encoders = ("text_encoder",)

    def encode(self, pipeline: Any, text: str, device: torch.device) -> Encoded:
        embeddings, _ = pipeline.encode_prompt(text, device=device, do_classifier_free_guidance=False)
        return embeddings[0], None

    def predict(
        self, pipeline: Any, noisy: Tensor, sigma: Tensor, drawn: Tensor, captions: Sequence[Encoded]
    ) -> Tensor:
        embeddings = [embedding for embedding, _ in captions]
        frames = list(noisy.to(embeddings[0].dtype).unsqueeze(2).unbind())
        flows = pipeline.transformer(frames, 1 - sigma, embeddings).sample
        return -torch.stack(flows).squeeze(2)

    def draw(self, pipeline: Any, positive: Encoded, negative: Encoded, sampling: Sampling, shared: Config) -> Tensor:
        picture: Tensor = pipeline(
            prompt_embeds=[positive[0]],
            negative_prompt_embeds=[negative[0]],
            guidance_scale=max(sampling.cfg - 1, 0.0),  # the pipeline's scale of 0 is a CFG of 1
            **shared,
        ).images
        return picture
