"""What a LoRA does to pictures: how far it moves them, where it should not, and whether it copies.

The same prompts and seeds are drawn with the LoRA and without it. Distances are told as shares of the mean distance
between the base model's pictures of different prompts, so that they mean the same for every model: 0 is the same
picture, 1 is as unlike as a picture of something else.
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
from ..data.images.image_facts import difference_hash
from ..data.images.training_image import TrainingImage
from ..files.pictures import to_picture
from ..models.previews import Sampling
from .image_similarity import SIDE, distances, likeness, mean_distance

UNRELATED = ("a tree in a field", "a cup on a table", "a street in a city")
"""Prompts that hardly any LoRA is about."""

UNRELATED_OF_THE_DEMO = (
    "hollow, a red square on a grey background",
    "glowing, a blue heart on a white background",
    "banded, a green circle on a pink background",
)
"""The demo model knows nothing but shapes; these are in styles of its own."""

SUBJECTS = 2
"""Captions that are drawn, each with two seeds."""

MOST_STEPS = 10
"""Of the sampler: layout and colours are settled by then."""

LEAST_DISTANCE = 0.01
"""Distance between pictures below which they are the same, and shares of it mean nothing."""

CANDIDATES = 16
"""Training images, nearest by their difference hash, that a picture is compared with."""

Pictures = Mapping[str, Tensor]
"""(count, height, width, 3) in 0..1 by the names of `measure_samplings`."""


def measure_samplings(dataset: ImageDataset, sampling: Sampling, architecture: str) -> dict[str, Sampling]:
    """What is drawn with the LoRA and without it.

    Returns:
        subjects: captions, of images that are not trained where there are some. other_seed: the same with another
        seed. unrelated: prompts of other things. And with a trigger word without_word: the subjects without it;
        word_elsewhere: the other things with it.
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
    """A caption without its trigger word, and without the comma behind it."""
    text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)\s*,?", " ", caption, flags=re.IGNORECASE)
    return " ".join(text.split())


@dataclass(frozen=True)
class Measures:
    """
    Attributes:
        effect: how far the LoRA moves pictures of its subjects.
        drift: how far it moves pictures of unrelated prompts.
        variety: distance between two seeds with the LoRA, as a share of that without it.
        likeness: normalised cross-correlation of pictures of the subjects with the nearest training images, mean; of
            the base's pictures in `base_likeness`. nearest: the image that one of them is most like.
        without_word: how far it moves pictures of its subjects when the prompt lacks the trigger word; None where
            there is no such word.
        word_elsewhere: how far it moves pictures of unrelated prompts with the word; None likewise.
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
        """One line each, in words."""
        lines = [
            f"Effect: pictures of the captions moved by {self.effect:.2f} (0 is not at all, 1 is as far as to a "
            "picture of something else)",
            f"Drift: pictures of unrelated prompts moved by {self.drift:.2f}",
            f"Variety: two seeds differ {self.variety:.0%} as much as they do without the LoRA",
            f"Likeness to the nearest training image ({self.nearest}): {self.likeness:.2f} of 1, without the LoRA "
            f"{self.base_likeness:.2f}",
        ]
        if self.without_word is None or self.word_elsewhere is None:
            lines.append("Trigger word: there is none, so the LoRA acts on every prompt")
        else:
            lines.append(
                f'Trigger word "{word}": without it pictures of the captions moved by {self.without_word:.2f}; with it '
                f"pictures of unrelated prompts moved by {self.word_elsewhere:.2f}"
            )
        return lines


def compare(base: Pictures, trained: Pictures, images: Sequence[TrainingImage]) -> Measures:
    """
    Args:
        base, trained: without and with the LoRA.
        images: that were trained.
    """
    scale = max(mean_distance(torch.cat([base["subjects"], base["unrelated"]])), LEAST_DISTANCE)
    between_seeds = max(_mean(distances(base["subjects"], base["other_seed"])), LEAST_DISTANCE)

    def moved(*names: str) -> float:
        return _mean(torch.cat([distances(base[name], trained[name]) for name in names])) / scale

    own, nearest = _nearest(torch.cat([trained["subjects"], trained["other_seed"]]), images)
    base_own, _ = _nearest(torch.cat([base["subjects"], base["other_seed"]]), images)
    has_word = "without_word" in trained
    return Measures(
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
    """Mean likeness of the pictures to the training image that each is most like; the image of the greatest."""
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
    """All pictures: without the LoRA above, with it below."""
    rows = [torch.cat([pictures[name] for name in trained]) for pictures in (base, trained)]
    wide = torch.cat([row.permute(1, 0, 2, 3).flatten(1, 2) for row in rows])
    return to_picture(wide)


def _mean(values: Tensor) -> float:
    return float(values.mean())
