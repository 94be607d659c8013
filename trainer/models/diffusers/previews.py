"""Samples drawn by a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...optim.engine import Engine
from ..previews import Previewer, Sampling
from .families.base import Encoded
from .pipeline import Pipeline


class DiffusersPreviewer(Previewer):
    """Draws samples with a pipeline.

    Args:
        pipeline: the pipeline, whose denoiser carries the adapters.
        check_interrupt: a function called before each sample; it may raise to stop.

    Attributes:
        engine: the precision of the session.
    """

    engine: Engine

    def __init__(self, pipeline: Pipeline, check_interrupt: Callable[[], None]) -> None:
        self._pipeline, self._check_interrupt = pipeline, check_interrupt

    @property
    def samplers(self) -> Sequence[str]:
        return self._pipeline.family.samplers

    @property
    def schedulers(self) -> Sequence[str]:
        return self._pipeline.family.schedulers

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
        own_scheduler = pipeline.whole.scheduler
        pipeline.whole.scheduler = pipeline.family.scheduler(own_scheduler.config, sampling)
        pipeline.denoiser.eval()
        if pipeline.trains_text:
            self._encode_prompts([sampling])
        try:
            return torch.cat([self._picture(prompt, sampling) for prompt in sampling.prompts])
        finally:
            pipeline.denoiser.train()
            pipeline.whole.scheduler = own_scheduler
            pipeline.release_encoders()

    def _picture(self, prompt: str, sampling: Sampling) -> Tensor:
        self._check_interrupt()
        shared: dict[str, Any] = {
            "width": sampling.width,
            "height": sampling.height,
            "num_inference_steps": sampling.steps,
            "generator": torch.Generator().manual_seed(sampling.seed),
            "output_type": "pt",
        }
        positive, negative = self._encoded(prompt), self._encoded(sampling.negative)
        with self.engine.autocast(), _exactly_decoded(self._pipeline.vae):
            picture = self._pipeline.family.draw(self._pipeline.whole, positive, negative, sampling, shared)
        return picture.permute(0, 2, 3, 1).to("cpu", torch.float32)

    def _encoded(self, prompt: str) -> Encoded:
        """Return a prompt as the pipeline takes it; flow models also compute their latents in its dtype."""
        embedding, pooled = self._prompts[prompt]
        where: dict[str, Any] = {"device": self._pipeline.device}
        if self._pipeline.family.is_flow:
            where["dtype"] = self.engine.compute
        return embedding.to(**where), None if pooled is None else pooled.to(**where)


@contextmanager
def _exactly_decoded(vae: Any) -> Iterator[None]:
    """Let a VAE decode in its own dtype inside the context where float16 is computed in: SDXL's makes NaN of it."""
    decode = vae.decode

    def decoded(latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        kind = latents.device.type
        if not torch.is_autocast_enabled(kind) or torch.get_autocast_dtype(kind) is not torch.float16:
            return decode(latents, *args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return decode(latents.to(vae.dtype), *args, **kwargs)

    vae.decode = decoded
    try:
        yield
    finally:
        del vae.decode
