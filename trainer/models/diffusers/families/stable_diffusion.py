"""Stable Diffusion 1.5, 2.x and XL: UNets that predict noise or velocity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from ...previews import Sampling
from .base import Config, Encoded, Family, contexts, pooled

_SCHEDULERS = {
    "euler": EulerDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "ddim": DDIMScheduler,
}


class StableDiffusion(Family):
    """Stable Diffusion 1.5 and 2.x, and the demo model."""

    pipeline = "StableDiffusionPipeline"
    architectures: ClassVar[tuple[str, ...]] = ("sd15", "sd2", "sd2_v")
    denoiser = "unet"
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    trainable_text_encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "lora_te"}
    is_flow = False
    patch = 1
    samplers = tuple(_SCHEDULERS)

    def architecture(self, denoiser: Config, prediction_type: str) -> str:
        # Only the second generation has linear layers around its transformers, and OpenCLIP's wider embeddings.
        if not denoiser.get("use_linear_projection"):
            return "sd15"
        return "sd2_v" if prediction_type == "v_prediction" else "sd2"

    def distilled(self, denoiser: Config, scheduler: Config) -> str:
        sampler = str(scheduler.get("_class_name", ""))
        if denoiser.get("time_cond_proj_dim") is not None or sampler.startswith(("LCM", "TCD")):
            return f"the settings of an LCM ({sampler})"
        return ""

    def encode(self, pipeline: Any, text: str, device: torch.device) -> Encoded:
        """Encode a caption; diffusers truncates it to 75 tokens.

        `\\(` and `\\)` mean parentheses, as in ComfyUI and A1111, where others are weights.
        """
        text = text.replace(r"\(", "(").replace(r"\)", ")")
        embedding, _, *rest = pipeline.encode_prompt(
            text, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return embedding[0], rest[0][0] if rest else None

    def predict(
        self, pipeline: Any, noisy: Tensor, sigma: Tensor, drawn: Tensor, captions: Sequence[Encoded]
    ) -> Tensor:
        context = contexts(captions)
        scaled = noisy / (sigma**2 + 1).sqrt().reshape(-1, 1, 1, 1)
        prediction: Tensor = pipeline.unet(
            scaled.to(context.dtype),
            drawn,
            encoder_hidden_states=context,
            added_cond_kwargs=self._added(pipeline, captions, noisy),
        ).sample
        return prediction

    def _added(self, pipeline: Any, captions: Sequence[Encoded], latents: Tensor) -> dict[str, Tensor]:
        """Return further conditioning, by the UNet's name for it."""
        return {}

    def scheduler(self, config: Config, sampling: Sampling) -> Any:
        settings = dict(config)
        if sampling.sampler != "ddim":
            settings["use_karras_sigmas"] = sampling.scheduler == "karras"
        return _SCHEDULERS[sampling.sampler].from_config(settings)

    def draw(self, pipeline: Any, positive: Encoded, negative: Encoded, sampling: Sampling, shared: Config) -> Tensor:
        prompts = {"prompt_embeds": contexts([positive]), "negative_prompt_embeds": contexts([negative])}
        if positive[1] is not None:
            prompts |= {
                "pooled_prompt_embeds": pooled([positive]),
                "negative_pooled_prompt_embeds": pooled([negative]),
            }
        picture: Tensor = pipeline(**prompts, guidance_scale=sampling.cfg, **shared).images
        return picture


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL, which also sees a pooled embedding and the size of the image."""

    pipeline = "StableDiffusionXLPipeline"
    architectures: ClassVar[tuple[str, ...]] = ("sdxl",)
    text_encoders = ("text_encoder", "text_encoder_2")
    trainable_text_encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}

    def architecture(self, denoiser: Config, prediction_type: str) -> str:
        return "sdxl"

    def _added(self, pipeline: Any, captions: Sequence[Encoded], latents: Tensor) -> dict[str, Tensor]:
        embeddings = pooled(captions)
        height, width = (side * pipeline.vae_scale_factor for side in latents.shape[-2:])
        sizes = torch.tensor([height, width, 0, 0, height, width]).expand(len(captions), -1)
        return {"text_embeds": embeddings, "time_ids": sizes.to(embeddings)}
