"""Sampling with ComfyUI's own sampler, with the same result as Empty Latent Image, KSampler and VAE Decode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ..previews import Previewer, Sampling
from . import conditioning, memory
from .loading import LoadedModel


class ComfyUIPreviewer(Previewer):
    """Draws samples as the nodes of a graph do.

    Args:
        loaded: the model.
        clip, vae: the CLIP and VAE from a loader node.
        check_interrupt: a function called before each sample; it may raise to stop.

    Attributes:
        encode_anew: whether prompts are encoded for each round, because the text encoders are trained.
    """

    def __init__(self, loaded: LoadedModel, clip: Any, vae: Any, check_interrupt: Callable[[], None]) -> None:
        self._loaded, self._clip, self._vae = loaded, clip, vae
        self._check_interrupt = check_interrupt
        self.encode_anew = False

    @property
    def samplers(self) -> Sequence[str]:
        return comfy.samplers.KSampler.SAMPLERS

    @property
    def schedulers(self) -> Sequence[str]:
        return comfy.samplers.KSampler.SCHEDULERS

    def prepare(self, samplings: Sequence[Sampling]) -> None:
        prompts = dict.fromkeys(prompt for one in samplings for prompt in (one.negative, *one.prompts))
        with memory.as_in_a_node():
            self._prompts = {prompt: conditioning.encode_prompt(self._clip, prompt) for prompt in prompts}

    def draw(self, sampling: Sampling) -> Tensor:
        self._loaded.was_unloaded()
        if self.encode_anew:
            self.prepare([sampling])
        negative = self._prompts[sampling.negative]
        with memory.as_in_a_node():
            return torch.cat([self._picture(prompt, negative, sampling) for prompt in sampling.prompts])

    def _picture(self, prompt: str, negative: list[Any], sampling: Sampling) -> Tensor:
        self._check_interrupt()
        return sample_picture(self._loaded.patcher, self._vae, self._prompts[prompt], negative, sampling)


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
