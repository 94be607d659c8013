"""Samples drawn by a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from ...optim.engine import Engine
from ..previews import Previewer, Sampling
from .pipeline import Pipeline

_SAMPLERS = {
    "euler": EulerDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "ddim": DDIMScheduler,
}


class DiffusersPreviewer(Previewer):
    """Draws samples with a pipeline.

    Args:
        pipeline: the pipeline, whose UNet carries the adapters.
        check_interrupt: a function called before each sample; it may raise to stop.

    Attributes:
        engine: the precision of the session.
    """

    engine: Engine

    def __init__(self, pipeline: Pipeline, check_interrupt: Callable[[], None]) -> None:
        self._pipeline, self._check_interrupt = pipeline, check_interrupt

    @property
    def samplers(self) -> Sequence[str]:
        return tuple(_SAMPLERS)

    @torch.no_grad()
    def prepare(self, samplings: Sequence[Sampling]) -> None:
        self._encode_prompts(samplings)

    def _encode_prompts(self, samplings: Sequence[Sampling]) -> None:
        prompts = dict.fromkeys(prompt for one in samplings for prompt in (one.negative, *one.prompts))
        self._prompts = {prompt: self._pipeline.encode(prompt) for prompt in prompts}

    @torch.no_grad()
    def draw(self, sampling: Sampling) -> Tensor:
        pipeline = self._pipeline
        pipeline.vae.to(pipeline.device)
        training_scheduler, pipeline.whole.scheduler = pipeline.whole.scheduler, self._scheduler(sampling)
        pipeline.unet.eval()
        if pipeline.trains_text:
            self._encode_prompts([sampling])
        try:
            return torch.cat([self._picture(prompt, sampling) for prompt in sampling.prompts])
        finally:
            pipeline.unet.train()
            pipeline.whole.scheduler = training_scheduler
            pipeline.release_encoders()

    def _scheduler(self, sampling: Sampling) -> Any:
        config = dict(self._pipeline.whole.scheduler.config)
        if sampling.sampler != "ddim":
            config["use_karras_sigmas"] = sampling.scheduler == "karras"
        return _SAMPLERS[sampling.sampler].from_config(config)

    def _picture(self, prompt: str, sampling: Sampling) -> Tensor:
        self._check_interrupt()
        positive, negative = self._prompts[prompt], self._prompts[sampling.negative]

        def row(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.unsqueeze(0).to(self._pipeline.device)

        arguments: dict[str, Any] = {
            "prompt_embeds": row(positive[0]),
            "negative_prompt_embeds": row(negative[0]),
        }
        if positive[1] is not None:
            arguments["pooled_prompt_embeds"] = row(positive[1])
            arguments["negative_pooled_prompt_embeds"] = row(negative[1])
        with self.engine.autocast():
            picture = self._pipeline.whole(
                **arguments,
                width=sampling.width,
                height=sampling.height,
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.cfg,
                generator=torch.Generator().manual_seed(sampling.seed),
                output_type="pt",
            ).images
        return picture.permute(0, 2, 3, 1).to("cpu", torch.float32)
