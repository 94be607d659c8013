"""Measurements of what a LoRA does to images: how much it changes them, and whether it copies training images.

The same prompts and seeds are drawn with the LoRA and without it. Distances are given as shares of the mean distance
between the base model's images of different prompts, so that they mean the same for every model: 0 is the same image, 1
is as different as an image of something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from ..data.images.dataset import ImageDataset
from ..data.images.decode import load_pixels
from ..data.images.image_measures import difference_hash
from ..data.images.training_image import TrainingImage
from ..files.pictures import to_picture
from ..models.previews import Sampling
from .image_similarity import SIDE, distances, likeness, mean_distance

UNRELATED = ("a tree in a field", "a cup on a table", "a street in a city")
"""Prompts about things that hardly any LoRA is trained on."""

UNRELATED_OF_THE_DEMO = (
    "hollow, a red square on a grey background",
    "glowing, a blue heart on a white background",
    "banded, a green circle on a pink background",
)
"""Unrelated prompts for the demo model, which knows only shapes in a few styles of its own."""

SUBJECTS = 2
"""The number of captions that are drawn, each with two seeds."""

MOST_STEPS = 10
"""The most sampling steps per image; layout and colours are settled by then."""

LEAST_DISTANCE = 0.01
"""The distance below which images count as the same, so that shares of it would be meaningless."""

CANDIDATES = 16
"""The number of training images, nearest by difference hash, that a drawn image is compared with."""

Pictures = Mapping[str, Tensor]
"""Drawn images (count, height, width, 3), float32 in 0..1, by the names in `measure_samplings`."""


def measure_samplings(dataset: ImageDataset, sampling: Sampling, architecture: str) -> dict[str, Sampling]:
    """Return the settings of the images to draw with the LoRA and without it, by name.

    Returns:
        `subjects`: captions, preferably of held-out images. `other_seed`: the same captions with another seed.
        `unrelated`: prompts about other things. If there is a trigger word, also `without_word`: the captions without
        it, and `word_elsewhere`: the unrelated prompts with it.
    """
    unrelated = UNRELATED_OF_THE_DEMO if architecture == "demo" else UNRELATED
    word = dataset.trigger_word
    captions = tuple(dict.fromkeys(image.caption for image in (*dataset.validation, *dataset.images)))[:SUBJECTS]
    few = replace(sampling, steps=min(sampling.steps, MOST_STEPS))
    samplings = {
        "subjects": replace(few, prompts=captions),
        "other_seed": replace(few, prompts=captions, seed=(sampling.seed + 1) % 2**63),
        "unrelated": replace(few, prompts=unrelated),
    }
    if word:
        samplings["without_word"] = replace(few, prompts=tuple(without_word(caption, word) for caption in captions))
        samplings["word_elsewhere"] = replace(few, prompts=tuple(f"{word}, {prompt}" for prompt in unrelated))
    return samplings


def without_word(caption: str, word: str) -> str:
    """Return a caption without its trigger word and the comma after it."""
    text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)\s*,?", " ", caption, flags=re.IGNORECASE)
    return " ".join(text.split())


@dataclass(frozen=True)
class ImageMeasures:
    """Measurements of the images that a LoRA changes.

    Attributes:
        effect: how much the LoRA changes images of the captions.
        drift: how much it changes images of unrelated prompts.
        variety: the distance between images of two seeds with the LoRA, as a share of that without it.
        likeness: the mean normalised cross-correlation between images of the captions and the training image nearest to
            each.
        base_likeness: the same for images of the base model alone.
        nearest: the name of the training image that is copied most closely.
        without_word: how much the LoRA changes images of the captions without their trigger word; None if there is no
            trigger word.
        word_elsewhere: how much it changes images of unrelated prompts with the trigger word; None if there is none.
    """

    effect: float
    drift: float
    variety: float
    likeness: float
    base_likeness: float
    nearest: str
    without_word: float | None = None
    word_elsewhere: float | None = None

    def lines(self, word: str) -> list[str]:
        """Return one report line per measurement.

        Args:
            word: the trigger word, or "".
        """
        lines = [
            f"Effect: images of the captions changed by {self.effect:.2f} (0: not at all, 1: as different as an image "
            "of something else)",
            f"Drift: images of unrelated prompts changed by {self.drift:.2f}",
            f"Variety: images of two seeds differ {self.variety:.0%} as much as without the LoRA",
            f"Likeness to the nearest training image ({self.nearest}): {self.likeness:.2f} of 1, without the LoRA "
            f"{self.base_likeness:.2f}",
        ]
        if self.without_word is None or self.word_elsewhere is None:
            lines.append("Trigger word: there is none, so the LoRA affects every prompt")
        else:
            lines.append(
                f'Trigger word "{word}": without it, images of the captions changed by {self.without_word:.2f}; with '
                f"it, images of unrelated prompts changed by {self.word_elsewhere:.2f}"
            )
        return lines


def compare(base: Pictures, trained: Pictures, images: Sequence[TrainingImage]) -> ImageMeasures:
    """Measure how images with the LoRA differ from those without it.

    Args:
        base, trained: the images without and with the LoRA.
        images: the training images.
    """
    scale = max(mean_distance(torch.cat([base["subjects"], base["unrelated"]])), LEAST_DISTANCE)
    between_seeds = max(_mean(distances(base["subjects"], base["other_seed"])), LEAST_DISTANCE)

    def moved(*names: str) -> float:
        return _mean(torch.cat([distances(base[name], trained[name]) for name in names])) / scale

    own, nearest = _nearest(torch.cat([trained["subjects"], trained["other_seed"]]), images)
    base_own, _ = _nearest(torch.cat([base["subjects"], base["other_seed"]]), images)
    has_word = "without_word" in trained
    return ImageMeasures(
        effect=moved("subjects", "other_seed"),
        drift=moved("unrelated"),
        variety=_mean(distances(trained["subjects"], trained["other_seed"])) / between_seeds,
        likeness=own,
        base_likeness=base_own,
        nearest=nearest,
        without_word=moved("without_word") if has_word else None,
        word_elsewhere=moved("word_elsewhere") if has_word else None,
    )


def _nearest(pictures: Tensor, images: Sequence[TrainingImage]) -> tuple[float, str]:
    """Return the mean likeness of images to the nearest training image, and the name of the nearest of all."""
    found: list[tuple[float, str]] = []
    for picture in pictures:
        look = difference_hash(to_picture(picture).convert("L"))
        candidates = sorted(images, key=lambda image: (image.facts.look ^ look).bit_count())[:CANDIDATES]
        pixels = torch.stack([load_pixels(image.path, (SIDE, SIDE)) for image in candidates])
        alike = likeness(picture.unsqueeze(0), pixels)[0]
        best = int(alike.argmax())
        found.append((float(alike[best]), candidates[best].name))
    return sum(value for value, _ in found) / len(found), max(found)[1]


def sheet(base: Pictures, trained: Pictures) -> Image.Image:
    """Join all images in one: those without the LoRA above, those with it below."""
    rows = [torch.cat([pictures[name] for name in trained]) for pictures in (base, trained)]
    wide = torch.cat([row.permute(1, 0, 2, 3).flatten(1, 2) for row in rows])
    return to_picture(wide)


def _mean(values: Tensor) -> float:
    return float(values.mean())
