"""The inputs of diffusion models: images and captions that are encoded or taken from the cache, and drawn during
training."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...data.cache import Job, TensorCache
from ...data.images.examples import ImageExample, View
from ...distributed.processes import IsOutOfMemory
from ...errors import CrucibleError
from ...hardware.out_of_memory import is_out_of_memory
from ...seeding import generator
from ..examples import CachedExample, Progress

SMALLEST_MASK = 1e-3
"""The smallest mean of a mask; below it, nothing of the image would be trained."""


@dataclass(frozen=True)
class Latent:
    """An encoded image.

    Attributes:
        values: the latent (channels, ...), scaled as the model expects it.
        mask: the weight of each pixel of the latent in the loss, (height, width), from 0 to 1; None if all count fully.
    """

    values: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class Caption:
    """A caption, encoded or to be encoded.

    Attributes:
        text: the caption itself, for text encoders that are trained.
        encoded: a function that fetches the caption as encoded by the frozen text encoders.
    """

    text: str
    encoded: Callable[[], Any]


@dataclass(frozen=True)
class Inputs:
    """The latents and captions of one example, of which one each is drawn whenever the example is shown.

    Attributes:
        latents: functions that fetch the latents.
        captions: the captions, at least one.
        without_caption: the caption that replaces a dropped one.
        dropout: the probability that a caption is dropped, from 0 to 1.
        weight: the factor on the loss of the example.
    """

    latents: tuple[Callable[[], Latent], ...]
    captions: tuple[Caption, ...]
    without_caption: Caption | None = None
    dropout: float = 0.0
    weight: float = 1.0

    def draw(self, seed: int) -> tuple[Latent, Caption]:
        """Draw a latent and a caption; the choice depends only on the seed."""
        random = generator(seed, "variant")
        view, caption, dropped = torch.rand(3, generator=random).tolist()
        latent = self.latents[int(view * len(self.latents))]()
        if self.without_caption is not None and dropped < self.dropout:
            return latent, self.without_caption
        return latent, self.captions[int(caption * len(self.captions))]


class Encoders(ABC):
    """A base model's VAE and text encoders.

    Attributes:
        vae_identity, text_identity: hashes of everything that latents and encoded captions depend on.
    """

    vae_identity: str
    text_identity: str

    @property
    def identity(self) -> str:
        """A hash of everything that latents and encoded captions depend on."""
        return f"{self.vae_identity}|{self.text_identity}"

    @abstractmethod
    def latent(self, pixels: Tensor, name: str) -> Tensor:
        """Encode an image.

        Args:
            pixels: the image (height, width, 3), float32 in 0..1.
            name: the image's name, for messages.

        Returns:
            The latent (channels, ...), float32 on the CPU, scaled as the model expects it.
        """

    @abstractmethod
    def caption(self, text: str) -> Any:
        """Encode a caption, and return nested lists and dicts of CPU tensors."""


def cached_examples(
    examples: Sequence[ImageExample],
    encoders: Encoders,
    cache: TensorCache,
    dropout: float,
    encode_captions: bool,
    progress: Progress,
    is_oom: IsOutOfMemory = is_out_of_memory,
) -> list[CachedExample[Inputs]]:
    """Encode the images and captions that are not in the cache.

    Args:
        examples: the examples of an epoch.
        encoders: the VAE and text encoders of the base model.
        cache: the cache of encoded inputs.
        dropout: the probability that a caption is dropped, from 0 to 1.
        encode_captions: whether to encode captions too; False if the text encoders are trained.
        progress: a function called with (done, total, what is being done).
        is_oom: a function that returns whether an error is an out-of-memory error.

    Returns:
        The examples in the same order. An example that occurs several times stays one object.

    Raises:
        CrucibleError: an image cannot be encoded, or its latent contains NaN or infinite values.
    """
    distinct = list({id(example): example for example in examples}.values())
    views = {
        _view_key(view, encoders): (view, example.name, math.prod(example.size))
        for example in distinct
        for view in example.views
    }
    captions = {}
    if encode_captions:
        captions = {_caption_key(text, encoders): text for example in distinct for text in example.captions}
        captions[_caption_key("", encoders)] = ""
    jobs = [Job(key, partial(encoders.caption, text), "encoding captions") for key, text in captions.items()]
    for key, (view, name, size) in views.items():
        jobs.append(Job(key, partial(_encoded, view, name, encoders), "encoding images", size))
    cache.fill(jobs, progress, is_oom)

    def latent(key: str, name: str) -> Callable[[], Latent]:
        return lambda: Latent(**_fetched(cache, key, name))

    def caption(text: str) -> Caption:
        return Caption(text, lambda: _fetched(cache, _caption_key(text, encoders), "a caption"))

    made: dict[int, CachedExample[Inputs]] = {}
    for example in distinct:
        inputs = Inputs(
            tuple(latent(_view_key(view, encoders), example.name) for view in example.views),
            tuple(map(caption, example.captions)),
            caption(""),
            dropout,
            example.weight,
        )
        width, height = example.size
        made[id(example)] = CachedExample(example.name, example.size, inputs, width * height)
    return [made[id(example)] for example in examples]


def _view_key(view: View, encoders: Encoders) -> str:
    mask = "" if view.mask is None else f"|mask {view.mask_content}"
    return f"latent|{encoders.vae_identity}|{view.key}{mask}"


def _caption_key(text: str, encoders: Encoders) -> str:
    return f"caption|{encoders.text_identity}|{text}"


def _encoded(view: View, name: str, encoders: Encoders) -> dict[str, Tensor | None]:
    values = encoders.latent(view.pixels(), name)
    if not values.isfinite().all():
        raise CrucibleError(
            f"The VAE encoded {name} to NaN or infinite values, which would ruin the whole training. VAEs in float16 "
            "often do that: start ComfyUI with --fp32-vae, or use another VAE."
        )
    return {"values": values, "mask": _latent_mask(view.mask_pixels(), values, name)}


def _latent_mask(mask: Tensor | None, latent: Tensor, name: str) -> Tensor | None:
    if mask is None:
        return None
    small = F.interpolate(mask[None, None], size=latent.shape[-2:], mode="area")[0, 0]
    if small.mean() < SMALLEST_MASK:
        raise CrucibleError(
            f"The mask of {name} leaves nothing of the image to train on. White or opaque areas are trained: invert "
            "the mask, or remove the image from the folder."
        )
    return small


def _fetched(cache: TensorCache, key: str, name: str) -> Any:
    try:
        return cache.get(key)
    except KeyError:
        raise CrucibleError(
            f"The encoded form of {name} disappeared from the cache in {cache.folder} while it was in use. Start "
            "again: whatever is missing will be encoded again."
        ) from None


def stacked(latents: Sequence[Latent], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Stack latents on a device.

    Returns:
        The values (rows, channels, ...) and the masks (rows, height, width); the latter are None if no row has one.
    """
    values = torch.stack([one.values for one in latents]).to(device)
    if all(one.mask is None for one in latents):
        return values, None
    whole = torch.ones(values.shape[-2:])
    return values, torch.stack([whole if one.mask is None else one.mask for one in latents]).to(device)
