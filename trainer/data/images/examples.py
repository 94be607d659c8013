"""The training samples of a dataset: each image at its sizes, with its crops and its captions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ...config.data_settings import DataSettings
from .buckets import Buckets
from .captions import variants
from .decode import load_mask, load_pixels, unchanged
from .training_image import TrainingImage

if TYPE_CHECKING:
    from .dataset import ImageDataset

MIDDLE = (0.5, 0.5)

CROPS = ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0), MIDDLE)
"""The positions that random crops are drawn from, as fractions of what is cropped off that are taken from the left and
from the top. There are few, because each is encoded."""


@dataclass(frozen=True)
class View:
    """An image as it is trained: scaled, cropped and perhaps mirrored.

    Attributes:
        path: the image file.
        content: the SHA-256 hash of the image file.
        size: the width and height in pixels.
        crop: the fractions of what is cropped off that are taken from the left and from the top, 0 to 1.
        mirrored: whether the image is mirrored horizontally.
        mask: the file that says which part is trained; None trains all of it.
        mask_content: the SHA-256 hash of the mask file.
        whole: the width and height of the whole image in pixels.
    """

    path: Path
    content: str
    size: tuple[int, int]
    crop: tuple[float, float] = MIDDLE
    mirrored: bool = False
    mask: Path | None = None
    mask_content: str = ""
    whole: tuple[int, int] | None = None

    @property
    def key(self) -> str:
        """A key that is the same for the same pixels, wherever the file is."""
        return f"{self.content}|{self.size}|{self.crop}|{self.mirrored}"

    def pixels(self) -> Tensor:
        """Load the pixels as a float32 tensor of shape (height, width, 3), with values from 0 to 1.

        Raises:
            UnreadableImage: the file has become unreadable since it was checked.
            CrucibleError: the file has changed since it was checked.
        """
        data = unchanged(self.path, self.content)
        return load_pixels(self.path, self.size, self.crop, mirrored=self.mirrored, data=data)

    def mask_pixels(self) -> Tensor | None:
        """Load the mask as a float32 tensor of shape (height, width), 1 where the image is trained; None trains it all.

        Raises:
            UnreadableImage: the file has become unreadable since it was checked.
            CrucibleError: the file has changed since it was checked.
        """
        if self.mask is None:
            return None
        data = unchanged(self.mask, self.mask_content)
        return load_mask(
            self.mask,
            self.size,
            self.crop,
            mirrored=self.mirrored,
            from_alpha=self.mask == self.path,
            data=data,
            whole=self.whole,
        )


@dataclass(frozen=True)
class ImageExample:
    """An image at one resolution.

    Attributes:
        name: the name of the image in messages to the user.
        views: the views of the image, of which one is drawn whenever the sample is shown.
        captions: the captions, of which one is drawn whenever the sample is shown.
        weight: the weight of the sample's loss.
    """

    name: str
    views: tuple[View, ...]
    captions: tuple[str, ...]
    weight: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        """The width and height in pixels, which all views have in common."""
        return self.views[0].size


def training_samples(dataset: ImageDataset, default_resolution: int) -> list[ImageExample]:
    """Return the examples of an epoch in a fixed order, with those of repeated images several times.

    There are `reg_ratio` times as many examples of regularization images as of training images; some are repeated or
    left out for that.

    Args:
        dataset: the dataset whose training and regularization images are shown.
        default_resolution: the resolution to use if the dataset does not set one.
    """
    settings = dataset.settings
    resolutions = settings.resolutions(default_resolution)
    examples = _examples(settings, dataset.images, resolutions, 1.0)
    if not dataset.regularization:
        return examples
    regular = _examples(settings, dataset.regularization, resolutions, settings.prior_loss_weight)
    count, wanted = len(regular), round(settings.reg_ratio * len(examples))
    if count >= wanted:
        return examples + [regular[index * count // wanted] for index in range(wanted)]
    return examples + [regular[index % count] for index in range(wanted)]


def fixed_examples(
    settings: DataSettings, images: Sequence[TrainingImage], default_resolution: int
) -> list[ImageExample]:
    """Return each image once, in a form that can be measured repeatedly: centred, not mirrored, with its first caption.

    Args:
        default_resolution: the resolution to use if the dataset does not set one.
    """
    fixed = settings.model_copy(
        update={
            "extra_resolutions": "",
            "horizontal_flip": False,
            "random_crop": False,
            "shuffle_caption": False,
        }
    )
    once = [replace(image, captions=image.captions[:1], repeats=1) for image in images]
    return _examples(fixed, once, fixed.resolutions(default_resolution), 1.0)


def _examples(
    settings: DataSettings, images: Sequence[TrainingImage], resolutions: Sequence[int], weight: float
) -> list[ImageExample]:
    examples = []
    for resolution in resolutions:
        buckets = Buckets.of(settings, resolution)
        for image in images:
            mask_content = "" if image.mask is None else hashlib.sha256(image.mask.read_bytes()).hexdigest()
            whole = (image.width, image.height)
            size = buckets.size(*whole)
            views = tuple(
                View(image.path, image.facts.content, size, crop, mirrored, image.mask, mask_content, whole)
                for crop in (CROPS if settings.random_crop else (MIDDLE,))
                for mirrored in ((False, True) if settings.horizontal_flip else (False,))
            )
            captions = tuple(text for caption in image.captions for text in variants(caption, settings))
            examples += [ImageExample(image.name, views, captions or ("",), weight)] * image.repeats
    return examples
