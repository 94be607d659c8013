"""Checks for problems in the images and captions of a dataset that would weaken the training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ...messages.wording import counted
from ..findings import Finding
from .buckets import LONGEST, SMALLEST, Buckets
from .captions import holds_word
from .dataset import ImageDataset
from .picture_checks import picture_findings
from .training_image import TrainingImage
from .words import EMPTY_WORDS, VIEWS

VERY_FEW, FEW, MANY = 15, 30, 300
"""Numbers of images. Below the first, a LoRA mostly reproduces them; below the second, it varies little; above the
third, training time grows faster than what is learned."""

EXTREME_ASPECT = 3.0

TELLING_WORDS = 3
"""A caption with fewer meaningful words than this says little about its image."""


CLIP_TOKENS = 75
"""The number of tokens that CLIP reads at a time."""


@dataclass(frozen=True)
class TokenCounter:
    """A way to count the tokens of captions.

    Attributes:
        count: a function that returns the number of tokens in a text.
        limit: the number of tokens that the text encoder reads at a time.
        name: the way of counting, as reports name it.
        exact: whether the numbers are exact rather than estimates.
    """

    count: Callable[[str], int]
    limit: int
    name: str
    exact: bool


def estimated_tokens(text: str) -> int:
    """Estimate the number of CLIP tokens in a text: one for a word of up to 7 letters, two for a CJK character."""
    words = re.findall(r"[A-Za-z']+|\d|[^\sA-Za-z\d']", text)
    return sum(-(-len(word) // 7) if word.isascii() else 2 for word in words)


ESTIMATE = TokenCounter(estimated_tokens, CLIP_TOKENS, "an estimate for CLIP", exact=False)


def check_dataset(
    dataset: ImageDataset, resolution: int | None, tokens: TokenCounter = ESTIMATE, latent_factor: int | None = None
) -> list[Finding]:
    """Return the findings about a dataset, without those that were made while it was read.

    Args:
        resolution: the training resolution; None skips the checks that depend on it.
        tokens: the way to count the tokens of captions.
        latent_factor: the number of pixels per latent pixel along a side; None skips the checks that depend on it.
    """
    images = [*dataset.images, *dataset.validation]
    return [
        *_number(len(dataset.images)),
        *(_sizes(dataset, images, resolution) if resolution else ()),
        *_bucket_step(dataset.settings.bucket_step, latent_factor),
        *_aspects(images, dataset.settings.aspect_ratio_buckets),
        *picture_findings(images),
        *_captions(images, dataset.trigger_word),
        *_lengths(images, tokens),
        *_forgotten(dataset),
    ]


def views(images: Sequence[TrainingImage]) -> dict[str, int]:
    """Return the number of captions that mention each of `VIEWS`, without those that none mentions."""
    found = {view: sum(holds_word(image.caption, view) for image in images) for view in VIEWS}
    return {view: count for view, count in found.items() if count}


def _number(count: int) -> Iterator[Finding]:
    if count < VERY_FEW:
        consequence = "So few are soon memorised, and the LoRA then reproduces them instead of drawing something new."
        remedy = f"Add varied images, 20 to {FEW} if you can, or train for fewer epochs."
        yield Finding("few_images", "warning", f"Only {counted(count, 'image')}", consequence, remedy)
    elif count < FEW:
        remedy = f"{FEW} or more varied images generalise better."
        yield Finding("few_images", "note", f"{counted(count, 'image')} are enough for one subject", "", remedy)
    elif count > MANY:
        remedy = "The best 100 to 300 of them usually give as good a result in less time."
        yield Finding("many_images", "note", f"{counted(count, 'image')} are a lot for a LoRA", "", remedy)


def _sizes(dataset: ImageDataset, images: Sequence[TrainingImage], resolution: int) -> Iterator[Finding]:
    buckets = Buckets.of(dataset.settings, resolution)
    enlarged = _names(image for image in images if buckets.enlarges(image.width, image.height))
    if enlarged:
        why = "" if dataset.settings.allow_upscaling else f", because they are below {SMALLEST} x {SMALLEST} pixels"
        yield Finding(
            "enlarged",
            "warning",
            f"{counted(len(enlarged), 'image is', 'images are')} upscaled for training{why}",
            "Upscaling adds blur, and the LoRA learns it.",
            "Replace them with larger ones.",
            enlarged,
        )
    small = _names(
        image for image in images if image.width * image.height < 0.8 * resolution**2 and image.name not in enlarged
    )
    if small:
        yield Finding(
            "small",
            "warning",
            f"{counted(len(small), 'image is', 'images are')} smaller than {resolution} x {resolution}",
            "They are trained at their own size, and the LoRA learns less detail from them.",
            "Replace them with larger ones, or set a lower resolution.",
            small,
        )


def _bucket_step(step: int, latent_factor: int | None) -> Iterator[Finding]:
    if latent_factor and step % latent_factor:
        yield Finding(
            "bucket_step",
            "warning",
            f"The bucket step of {step} pixels is not a multiple of {latent_factor}, the size of a latent pixel here",
            "The VAE crops off what does not fit.",
            f"Set it to {-(-step // latent_factor) * latent_factor}.",
        )


def _aspects(images: Sequence[TrainingImage], in_own_aspect: bool) -> Iterator[Finding]:
    def aspect(image: TrainingImage) -> float:
        return max(image.width, image.height) / min(image.width, image.height)

    extreme = _names(image for image in images if aspect(image) > EXTREME_ASPECT)
    if extreme:
        kept = (
            f"Their longer side is trained up to {LONGEST} times the resolution"
            if in_own_aspect
            else "Only the square in their center is trained"
        )
        yield Finding(
            "extreme_aspect",
            "warning",
            f"{counted(len(extreme), 'image has', 'images have')} an aspect ratio of more than {EXTREME_ASPECT:g}:1",
            f"{kept}; the rest is cropped off.",
            "Crop them to the part that matters.",
            extreme,
        )


def _captions(images: Sequence[TrainingImage], trigger_word: str) -> Iterator[Finding]:
    captioned = [image for image in images if image.captions]
    if not captioned:
        return
    bare = {image.name: _without(image.caption, trigger_word) for image in captioned}
    common, count = Counter(bare.values()).most_common(1)[0]
    alike = count > 1 and count > len(captioned) / 2
    if alike:
        yield Finding(
            "captions_alike",
            "warning",
            f'{counted(count, "image has", "images have")} the same caption ("{common[:60] or trigger_word}")',
            "Everything that differs between them becomes part of what this caption calls up.",
            "Describe in each caption what is specific to its image.",
        )
    others = {name: text for name, text in bare.items() if text and not (alike and text == common)}
    general = tuple(name for name, text in others.items() if not _tells_enough(text))
    if len(general) > len(captioned) / 4:
        yield Finding(
            "captions_general",
            "note",
            f"{counted(len(general), 'caption says', 'captions say')} little about the image",
            "What a caption does not name is learned as part of the subject or style.",
            "Mention what should stay changeable: background, clothes, pose.",
            general,
        )
    without = tuple(
        image.name
        for image in captioned
        if trigger_word and not all(holds_word(caption, trigger_word) for caption in image.captions)
    )
    if without:
        yield Finding(
            "no_trigger_word",
            "warning",
            f'{counted(len(without), "caption does", "captions do")} not contain the trigger word "{trigger_word}"',
            "The trigger word is learned only from the others.",
            "Add it to them.",
            without,
        )
    elif not trigger_word and not _common_word(captioned):
        yield Finding(
            "no_trigger_word",
            "note",
            "There is no trigger word, and no word that all captions contain",
            "Nothing in particular will call up what is learned.",
            "Set a trigger word, unless the LoRA should affect every prompt.",
        )


def _tells_enough(caption: str) -> bool:
    """Return whether a caption has `TELLING_WORDS`, counting characters in scripts without spaces."""
    words = re.findall(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+", caption.casefold())
    return sum(word not in EMPTY_WORDS for word in words) >= TELLING_WORDS


def _common_word(images: Sequence[TrainingImage]) -> bool:
    words = [set(re.findall(r"\w+", image.caption.casefold())) for image in images]
    return bool(set.intersection(*words))


def _lengths(images: Sequence[TrainingImage], tokens: TokenCounter) -> Iterator[Finding]:
    long = _names(image for image in images if any(tokens.count(caption) > tokens.limit for caption in image.captions))
    if long:
        yield Finding(
            "captions_long",
            "warning",
            f"{counted(len(long), 'image has a caption', 'images have captions')} of more than {tokens.limit} tokens"
            f" ({tokens.name})",
            "Anything beyond that is read separately or not at all.",
            "Shorten them, and put what is most important first.",
            long,
        )


def _forgotten(dataset: ImageDataset) -> Iterator[Finding]:
    word = dataset.trigger_word
    named = _names(image for image in dataset.regularization if word and holds_word(image.caption, word))
    if named:
        yield Finding(
            "regularization_with_trigger_word",
            "warning",
            f'{counted(len(named), "regularization image has", "regularization images have")} "{word}" in the caption',
            "They would change what the trigger word means instead of protecting what the model knows.",
            "Remove it from their captions.",
            named,
        )


def _without(caption: str, trigger_word: str) -> str:
    if not trigger_word:
        return caption
    return re.sub(rf"^{re.escape(trigger_word)}\W*", "", caption, flags=re.IGNORECASE)


def _names(images: Iterator[TrainingImage]) -> tuple[str, ...]:
    return tuple(image.name for image in images)
