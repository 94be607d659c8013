"""What is trained of a dataset: each image at its sizes, with the ways it is cut and the captions it is shown with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from .buckets import Buckets
from .captions import variants
from .dataset import Dataset, TrainingImage
from .decode import load_mask, load_pixels

MIDDLE = (0.5, 0.5)

CROPS = ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0), MIDDLE)
"""Places that random crops are drawn from, as parts of what is cropped off to the left and at the top. Few, because
each is encoded."""


@dataclass(frozen=True)
class View:
    """An image as it is trained: scaled and cropped to `size` (width, height), perhaps mirrored.

    Attributes:
        crop: which part of what is cropped off lies to the left and at the top, 0 to 1.
        mask: the file that says which part is trained, of the SHA-256 `mask_content`.
    """

    path: Path
    content: str
    size: tuple[int, int]
    crop: tuple[float, float] = MIDDLE
    mirrored: bool = False
    mask: Path | None = None
    mask_content: str = ""

    @property
    def key(self) -> str:
        """The same for the same pixels, wherever the file lies."""
        return f"{self.content}|{self.size}|{self.crop}|{self.mirrored}"

    def pixels(self) -> Tensor:
        """float32 (height, width, 3), values 0 to 1.

        Raises:
            UnreadableImage: the file has become unreadable since it was checked.
        """
        return load_pixels(self.path, self.size, self.crop, mirrored=self.mirrored)

    def mask_pixels(self) -> Tensor | None:
        """float32 (height, width), 1 where the image is trained; None where all of it is."""
        if self.mask is None:
            return None
        return load_mask(self.mask, self.size, self.crop, mirrored=self.mirrored, from_alpha=self.mask == self.path)


@dataclass(frozen=True)
class Sample:
    """An image at one resolution.

    Attributes:
        name: what the user calls the image.
        views, captions: of each, one is drawn whenever the sample is shown.
        weight: of its loss.
    """

    name: str
    views: tuple[View, ...]
    captions: tuple[str, ...]
    weight: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        return self.views[0].size


def training_samples(dataset: Dataset, default_resolution: int) -> list[Sample]:
    """What an epoch shows, in a fixed order: samples with repeats stand in it several times.

    Regularization images are `reg_ratio` times as many as training images, by repeating them or leaving some out.
    """
    settings = dataset.settings
    resolutions = settings.resolutions(default_resolution)
    samples = _samples(dataset, dataset.images, resolutions, 1.0)
    if not dataset.regularization:
        return samples
    regularization = _samples(dataset, dataset.regularization, resolutions, settings.prior_loss_weight)
    count, wanted = len(regularization), round(settings.reg_ratio * len(samples))
    if count >= wanted:
        return samples + [regularization[index * count // wanted] for index in range(wanted)]
    return samples + [regularization[index % count] for index in range(wanted)]


def fixed_samples(dataset: Dataset, images: Sequence[TrainingImage], default_resolution: int) -> list[Sample]:
    """Each image once, as it can be measured time and again: its middle, upright, with its first caption."""
    settings = dataset.settings
    fixed = settings.model_copy(
        update={
            "extra_resolutions": "",
            "horizontal_flip": False,
            "random_crop": False,
            "shuffle_caption": False,
        }
    )
    once = [replace(image, captions=image.captions[:1], repeats=1) for image in images]
    return _samples(replace(dataset, settings=fixed), once, fixed.resolutions(default_resolution), 1.0)


def _samples(
    dataset: Dataset, images: Sequence[TrainingImage], resolutions: Sequence[int], weight: float
) -> list[Sample]:
    settings = dataset.settings
    samples = []
    for resolution in resolutions:
        buckets = Buckets.of(settings, resolution)
        for image in images:
            mask_content = "" if image.mask is None else hashlib.sha256(image.mask.read_bytes()).hexdigest()
            size = buckets.size(image.width, image.height)
            views = tuple(
                View(image.path, image.facts.content, size, crop, mirrored, image.mask, mask_content)
                for crop in (CROPS if settings.random_crop else (MIDDLE,))
                for mirrored in ((False, True) if settings.horizontal_flip else (False,))
            )
            captions = tuple(text for caption in image.captions for text in variants(caption, settings))
            samples += [Sample(image.name, views, captions or ("",), weight)] * image.repeats
    return samples
