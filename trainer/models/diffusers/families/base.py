"""What a family of diffusers pipelines has to say about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...previews import Sampling
from .latents import image_latent

Encoded = tuple[Tensor, Tensor | None]
"""A caption's embedding (tokens, width), and its pooled embedding (width,), which is None for families without one."""

Config = Mapping[str, Any]
"""The content of the config file of a part of a pipeline."""


class Family(ABC):
    """The pipelines of one class in diffusers: how they are called, and what their latents and predictions mean.

    Attributes:
        pipeline: the name of the pipeline's class.
        architectures: the ids of its architectures.
        denoiser: the name of the part of the pipeline that is trained.
        text_encoders: the names of its text encoders.
        trainable_text_encoders: the prefixes of the layers of CLIP text encoders in LoRA files, by the encoder's name.
            Other text encoders are language models, far too large to be worth training.
        is_flow: whether it predicts flow; otherwise its scheduler says what it predicts.
        patch: the number of latent pixels along the side of a patch; sides of latents are multiples of it.
        packed: how many channels of the denoiser's input a channel of a latent becomes.
        samplers, schedulers: the names, in ComfyUI, of the samplers and noise schedules of its samples; schedulers are
            empty if every name is accepted.
    """

    pipeline: ClassVar[str]
    architectures: ClassVar[tuple[str, ...]]
    denoiser: ClassVar[str] = "transformer"
    text_encoders: ClassVar[tuple[str, ...]]
    trainable_text_encoders: ClassVar[Mapping[str, str]] = {}
    is_flow: ClassVar[bool] = True
    patch: ClassVar[int] = 2
    packed: ClassVar[int] = 1
    samplers: ClassVar[tuple[str, ...]]
    schedulers: ClassVar[tuple[str, ...]] = ()

    def architecture(self, denoiser: Config, prediction_type: str) -> str:
        """Return the id of the architecture of a model.

        Args:
            denoiser: the config of its denoiser.
            prediction_type: what it predicts.
        """
        return self.architectures[0]

    def unsuitable(self, index: Config) -> str:
        """Return why a model of this family cannot be trained, as a sentence; "" if it can.

        Args:
            index: the content of its model_index.json.
        """
        return ""

    def distilled(self, denoiser: Config, scheduler: Config) -> str:
        """Return by what a model is seen to be distilled, as the end of "The base model NAME has …"; "" if it is not.

        Args:
            denoiser, scheduler: the configs of its denoiser and scheduler.
        """
        return ""

    def shift(self, scheduler: Config, pixels: float, native_pixels: float) -> float:
        """Return the shift of timesteps towards noise that the model samples with; 1 changes nothing.

        Args:
            scheduler: the config of its scheduler.
            pixels: the number of pixels of an image.
            native_pixels: the number of pixels that a shift without regard to size is meant for.
        """
        return 1.0

    @abstractmethod
    def encode(self, pipeline: Any, text: str, device: torch.device) -> Encoded:
        """Encode a caption on the device of the text encoders, with gradients where they are enabled."""

    def latent(self, vae: Any, pixels: Tensor) -> Tensor:
        """Encode an image (1, 3, height, width) in -1..1, and return the latent as the denoiser expects it, without the
        dimension of the batch."""
        return image_latent(vae, pixels)

    @abstractmethod
    def predict(
        self, pipeline: Any, noisy: Tensor, sigma: Tensor, drawn: Tensor, captions: Sequence[Encoded]
    ) -> Tensor:
        """Return the prediction of the denoiser, in the shape of the noisy latents.

        Args:
            pipeline: the pipeline.
            noisy: the noisy latents (rows, channels, …), in the convention of `diffusion.objective`.
            sigma: their noise levels (rows,).
            drawn: their timesteps (rows,).
            captions: the encoded captions, all of the same shape, on the device and in the dtype of the computation.
        """

    @abstractmethod
    def scheduler(self, config: Config, sampling: Sampling) -> Any:
        """Return the scheduler of diffusers that draws samples with these settings.

        Args:
            config: the config of the pipeline's own scheduler.
        """

    @abstractmethod
    def draw(self, pipeline: Any, positive: Encoded, negative: Encoded, sampling: Sampling, shared: Config) -> Tensor:
        """Call the pipeline for one sample, and return it as (1, 3, height, width) in 0..1.

        Args:
            pipeline: the pipeline, with the scheduler of `scheduler`.
            positive, negative: the prompts, encoded, on the device and in the dtype of the computation.
            sampling: the settings of the sample.
            shared: arguments that all pipelines have: size, number of steps, random numbers and kind of output.
        """


def contexts(captions: Sequence[Encoded]) -> Tensor:
    """Return the embeddings of captions as (rows, tokens, width)."""
    return torch.stack([embedding for embedding, _ in captions])


def pooled(captions: Sequence[Encoded]) -> Tensor:
    """Return the pooled embeddings of captions as (rows, width)."""
    return torch.stack([vector for _, vector in captions if vector is not None])
