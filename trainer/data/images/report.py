"""The report on a dataset: what it contains, how it is trained, and what is wrong with it."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass

from ...messages.wording import counted
from ..findings import Finding, by_weight, finding_lines, verdict_of
from .buckets import Buckets
from .checks import ESTIMATE, TokenCounter, check_dataset, views
from .dataset import ImageDataset


@dataclass(frozen=True)
class DatasetReport:
    """The report on a dataset.

    Attributes:
        name: the name of the dataset.
        folder: the folder of its images.
        images: the number of training images.
        shown_per_epoch: the number of training samples in an epoch, counting repeats and all resolutions.
        validation: the number of images held out for validation.
        regularization: the number of regularization images.
        trigger_word: the trigger word, or an empty string.
        resolutions: all training resolutions; empty if they are not known yet.
        sizes: the number of images by width and height in pixels, over all resolutions; most images first.
        latent_sizes: the width and height of the latents in the order of `sizes`; empty without a latent factor.
        words: the fewest, median and most words in a caption.
        tokens: the fewest, median and most tokens in a caption.
        token_counter: the way in which tokens were counted.
        views: the number of captions that mention each view of a character.
        findings: all findings, most severe first.
        verdict: a sentence that says whether the dataset is ready.
    """

    name: str
    folder: str
    images: int
    shown_per_epoch: int
    validation: int
    regularization: int
    trigger_word: str
    resolutions: tuple[int, ...]
    sizes: dict[tuple[int, int], int]
    latent_sizes: tuple[tuple[int, int], ...]
    words: tuple[int, float, int]
    tokens: tuple[int, float, int]
    token_counter: str
    views: dict[str, int]
    findings: tuple[Finding, ...]
    verdict: str

    def text(self) -> str:
        """Return the report as one page of plain text."""
        times = f", {self.shown_per_epoch} samples per epoch" if self.shown_per_epoch != self.images else ""
        lines = [
            self.verdict,
            "",
            f"Dataset {self.name}: {counted(self.images, 'image')}{times}",
            f"Folder: {self.folder}",
            f"Trigger word: {self.trigger_word or 'none'}",
        ]
        if self.validation:
            lines.append(f"Validation: {counted(self.validation, 'image')} held out")
        if self.regularization:
            lines.append(f"Regularization: {counted(self.regularization, 'image')}")
        lines.append(f"Captions: {_range(self.words, 'word')}; {_range(self.tokens, 'token')} ({self.token_counter})")
        if self.views:
            lines.append("Views mentioned: " + ", ".join(f"{view} {count}" for view, count in self.views.items()))
        if self.sizes:
            at = ", ".join(map(str, self.resolutions))
            lines.append(f"Resolution {at}; sizes in training (width x height):")
            latents = self.latent_sizes or (None,) * len(self.sizes)
            for ((x, y), count), latent in zip(self.sizes.items(), latents, strict=True):
                lines.append(f"  {x} x {y}: {count}" + (f" (latents {latent[0]} x {latent[1]})" if latent else ""))
        lines += finding_lines(self.findings)
        return "\n".join(lines)


def dataset_report(
    dataset: ImageDataset,
    *,
    resolution: int | None = None,
    tokens: TokenCounter = ESTIMATE,
    latent_factor: int | None = None,
) -> DatasetReport:
    """Report on a dataset as it will be trained.

    Args:
        resolution: the training resolution, if the dataset does not set one; without either, there are no sizes.
        tokens: the way to count the tokens of captions.
        latent_factor: the number of pixels per latent pixel along a side.
    """
    settings = dataset.settings
    first = settings.resolution or resolution
    resolutions = settings.resolutions(first) if first else ()
    sizes = Counter(
        Buckets.of(settings, one).size(image.width, image.height) for one in resolutions for image in dataset.images
    )
    ordered = dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))
    captions = [caption for image in dataset.images for caption in image.captions]
    findings = by_weight([*dataset.findings, *check_dataset(dataset, first, tokens, latent_factor)])
    return DatasetReport(
        name=dataset.name,
        folder=str(dataset.folder),
        images=len(dataset.images),
        shown_per_epoch=sum(image.repeats for image in dataset.images) * max(1, len(resolutions)),
        validation=len(dataset.validation),
        regularization=len(dataset.regularization),
        trigger_word=dataset.trigger_word,
        resolutions=resolutions,
        sizes=ordered,
        latent_sizes=tuple((x // latent_factor, y // latent_factor) for x, y in ordered) if latent_factor else (),
        words=_spread([len(caption.split()) for caption in captions]),
        tokens=_spread([tokens.count(caption) for caption in captions]),
        token_counter=tokens.name,
        views=views(dataset.images),
        findings=tuple(findings),
        verdict=verdict_of(findings),
    )


def _spread(values: list[int]) -> tuple[int, float, int]:
    return (min(values), statistics.median(values), max(values)) if values else (0, 0, 0)


def _range(spread: tuple[int, float, int], unit: str) -> str:
    fewest, median, most = spread
    return f"{most} {unit}s" if fewest == most else f"{fewest} to {most} {unit}s (median {median:g})"
