"""What the frozen encoders make of a dataset, from the cache or anew, and drawn from row by row while training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...data.cache import TensorCache
from ...data.images.samples import Sample, View
from ...errors import CrucibleError
from ...seeding import generator
from ..base import CachedExample, Progress

SMALLEST_MASK = 1e-3
"""Part of an image that its mask must leave to be trained."""


@dataclass(frozen=True)
class Latent:
    """`values` (channels, ...), scaled as the model wants them; `mask` as the last two dimensions, or None: the part
    of the loss that counts."""

    values: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class Inputs:
    """One sample's latents and encoded captions, or captions as texts. Both are fetched when they are drawn.

    Attributes:
        without_caption: what stands for a caption that is dropped.
        dropout: how often that happens, 0 to 1.
        weight: of the sample's loss.
    """

    latents: tuple[Callable[[], Latent], ...]
    captions: tuple[Callable[[], Any], ...]
    without_caption: Callable[[], Any] | None = None
    dropout: float = 0.0
    weight: float = 1.0

    def draw(self, seed: int) -> tuple[Latent, Any]:
        """A latent and an encoded caption; the seed alone says which."""
        random = generator(seed, "variant")
        view, caption, dropped = torch.rand(3, generator=random).tolist()
        latent = self.latents[int(view * len(self.latents))]()
        if self.without_caption is not None and dropped < self.dropout:
            return latent, self.without_caption()
        return latent, self.captions[int(caption * len(self.captions))]()


class Encoders(ABC):
    """A base model's VAE and text encoders. Identities say which they are: what they make depends on nothing else."""

    vae_identity: str
    text_identity: str

    @property
    def identity(self) -> str:
        return f"{self.vae_identity}|{self.text_identity}"

    @abstractmethod
    def latent(self, pixels: Tensor, name: str) -> Tensor:
        """Pixels (height, width, 3) in 0..1 to a latent (channels, ...), float32, CPU, as the model wants it."""

    @abstractmethod
    def caption(self, text: str) -> Any:
        """A caption as lists and dictionaries of CPU tensors."""


def cached_samples(
    samples: Sequence[Sample],
    encoders: Encoders,
    cache: TensorCache,
    dropout: float,
    progress: Progress,
    live_captions: bool = False,
) -> list[CachedExample]:
    """Encode what the cache does not hold, and give each sample its place in it. The same sample object stays one.

    Args:
        live_captions: captions stay texts.

    Raises:
        CrucibleError: an image cannot be encoded.
    """
    distinct = list({id(sample): sample for sample in samples}.values())
    views = {_view_key(view, encoders): (view, sample.name) for sample in distinct for view in sample.views}
    captions = {_caption_key(text, encoders): text for sample in distinct for text in sample.captions}
    captions[_caption_key("", encoders)] = ""
    if live_captions:
        captions.clear()
    missing_views = {key: value for key, value in views.items() if not cache.holds(key)}
    missing_captions = {key: text for key, text in captions.items() if not cache.holds(key)}
    total = len(missing_views) + len(missing_captions)
    for done, (key, text) in enumerate(missing_captions.items()):
        progress(done, total, "encoding captions")
        cache.get(key, partial(encoders.caption, text))
    for done, (key, (view, name)) in enumerate(missing_views.items(), start=len(missing_captions)):
        progress(done, total, "encoding images")
        cache.get(key, partial(_encoded, view, name, encoders))

    def latent(key: str, name: str) -> Callable[[], Latent]:
        return lambda: Latent(**_fetched(cache, key, name))

    def caption(text: str) -> Callable[[], Any]:
        if live_captions:
            return lambda: text
        return lambda: _fetched(cache, _caption_key(text, encoders), "a caption")

    made: dict[int, CachedExample] = {}
    for sample in distinct:
        inputs = Inputs(
            tuple(latent(_view_key(view, encoders), sample.name) for view in sample.views),
            tuple(map(caption, sample.captions)),
            caption(""),
            dropout,
            sample.weight,
        )
        made[id(sample)] = CachedExample(sample.name, sample.size, inputs, sample.size[0] * sample.size[1])
    return [made[id(sample)] for sample in samples]


def _view_key(view: View, encoders: Encoders) -> str:
    mask = "" if view.mask is None else f"|mask {view.mask_content}"
    return f"latent|{encoders.vae_identity}|{view.key}{mask}"


def _caption_key(text: str, encoders: Encoders) -> str:
    return f"caption|{encoders.text_identity}|{text}"


def _encoded(view: View, name: str, encoders: Encoders) -> dict[str, Tensor | None]:
    values = encoders.latent(view.pixels(), name)
    if not values.isfinite().all():
        raise CrucibleError(
            f"The VAE turned {name} into numbers that are not finite, which would spoil the whole training. VAEs in "
            "float16 do that: start ComfyUI with --fp32-vae, or use another VAE."
        )
    return {"values": values, "mask": _latent_mask(view.mask_pixels(), values, name)}


def _latent_mask(mask: Tensor | None, latent: Tensor, name: str) -> Tensor | None:
    if mask is None:
        return None
    small = F.interpolate(mask[None, None], size=latent.shape[-2:], mode="area")[0, 0]
    if small.mean() < SMALLEST_MASK:
        raise CrucibleError(
            f"The mask of {name} leaves nothing of the image to be trained. White, or opaque, is what is trained: "
            "invert the mask, or take the image out of the folder."
        )
    return small


def _fetched(cache: TensorCache, key: str, name: str) -> Any:
    try:
        return cache.get(key)
    except KeyError:
        raise CrucibleError(
            f"What was encoded of {name} has gone from the cache in {cache.folder} while it was used. Start again: "
            "what is missing is encoded anew."
        ) from None


def stacked(latents: Sequence[Latent], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Values (rows, channels, ...) and masks (rows, height, width), None where no row has one."""
    values = torch.stack([one.values for one in latents]).to(device)
    if all(one.mask is None for one in latents):
        return values, None
    whole = torch.ones(values.shape[-2:])
    return values, torch.stack([whole if one.mask is None else one.mask for one in latents]).to(device)
