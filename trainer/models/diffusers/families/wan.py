"""Wan, text to video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...previews import Sampling
from .base import Config, Encoded, contexts
from .flow import FlowFamily, fixed_shift
from .latents import frame_latent

_TOKENS = 512
"""The number of tokens that captions are filled up to, as the pipeline does for samples."""


class Wan(FlowFamily):
    """Wan 2.1 and the 5B model of Wan 2.2, trained on images as videos of one frame."""

    pipeline = "WanPipeline"
    architectures = ("wan",)
    text_encoders = ("text_encoder",)

    def unsuitable(self, index: Config) -> str:
        second = index.get("transformer_2")
        if second is None or second == [None, None]:
            return ""
        return (
            "It is one of Wan 2.2's models with two experts, one for high and one for low noise, each of which needs "
            "a LoRA of its own. Train Wan 2.1 or the 5B model of Wan 2.2, or one expert from its single file with "
            "ComfyUI's loaders."
        )

    def encode(self, pipeline: Any, text: str, device: torch.device) -> Encoded:
        embedding, _ = pipeline.encode_prompt(
            text, do_classifier_free_guidance=False, max_sequence_length=_TOKENS, device=device
        )
        return embedding[0], None

    def latent(self, vae: Any, pixels: Tensor) -> Tensor:
        return frame_latent(vae, pixels)

    def predict(
        self, pipeline: Any, noisy: Tensor, sigma: Tensor, drawn: Tensor, captions: Sequence[Encoded]
    ) -> Tensor:
        context = contexts(captions)
        prediction: Tensor = pipeline.transformer(
            hidden_states=noisy.to(context.dtype), timestep=sigma * 1000, encoder_hidden_states=context
        ).sample
        return prediction

    def scheduler(self, config: Config, sampling: Sampling) -> Any:
        # Published with UniPC's scheduler, of whose settings only the shift has a meaning for Euler's.
        return super().scheduler({"shift": fixed_shift(config)}, sampling)

    def draw(self, pipeline: Any, positive: Encoded, negative: Encoded, sampling: Sampling, shared: Config) -> Tensor:
        video: Tensor = pipeline(
            prompt_embeds=contexts([positive]),
            negative_prompt_embeds=contexts([negative]),
            guidance_scale=sampling.cfg,
            num_frames=1,
            **shared,
        ).frames
        return video[:, 0]
