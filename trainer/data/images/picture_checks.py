"""Checks for problems in the pixels of a dataset that would weaken the training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...messages.wording import counted
from ..findings import Finding, Severity
from .duplicates import near_duplicates
from .training_image import TrainingImage

BLURRED, BLURRED_SHARE = 0.06, 0.4
"""An image counts as blurred if its focus is below the first of these and below the second as a fraction of the
dataset's median, so that a dataset of soft images is as it should be."""

SHARP_SHARE, SHARPNESS_SHARE = 0.2, 0.004
"""It counts as blurred, too, if its focus and its sharpness are both below these fractions of the median, as those of a
slightly blurred page among sharp ones are."""

OUTLIERS_FROM = 10
"""The fewest images among which outliers can be recognized."""

OUTLIER_DISTANCE = 8.0
"""An outlier is more than this many robust standard deviations away from the median image."""

LEAST_SPREAD = 0.03
"""The least spread assumed for each measure (0 to 1), so that nothing is an outlier among nearly identical images."""

NOTES: dict[str, tuple[Severity, str, str, str]] = {
    "end_missing": (
        "note",
        "ends without the mark that its format asks for, but with all of its pixels",
        "It is used.",
        "Save it again if other programs refuse it.",
    ),
    "checksum": (
        "note",
        "has a wrong checksum",
        "It is used, though some of its pixels may be damaged.",
        "Look at it.",
    ),
    "profile_ignored": (
        "note",
        "has a color profile that is damaged or made for another kind of colors",
        "It is used without the profile, so its colors may be slightly off.",
        "Compare it with what an image viewer shows, and save it again as sRGB if they differ.",
    ),
    "hdr": (
        "note",
        "is an HDR image",
        "What is brighter than white paper is cut off.",
        "Look at the preview, and convert it yourself if the bright parts matter.",
    ),
    "white_255": (
        "note",
        "does not say which number is white, and 255 was taken for it",
        "If that is wrong, its brightness is.",
        "Look at the preview, and save it as a 16-bit PNG if it looks wrong there.",
    ),
    "white_65535": (
        "note",
        "does not say which number is white, and 65535 was taken for it",
        "If that is wrong, its brightness is.",
        "Look at the preview, and save it as a 16-bit PNG if it looks wrong there.",
    ),
    "nearly_black": (
        "warning",
        "uses only the lowest numbers of its 16 bits",
        "As the file says nothing else, it is trained nearly black.",
        "If it comes from a camera of 12 bits, stretch its brightness to the whole range and save it again.",
    ),
}
"""What is worth telling about how files were read: the severity, what was found about a file, why it matters, and what
to do, by the names in `ImageFacts.notes`."""


def picture_findings(images: Sequence[TrainingImage]) -> list[Finding]:
    """Return the findings about the pixels of images, each fault under one name only."""
    shown = [image for image in images if not image.facts.blank]
    blurred = _blurred(shown)
    return [
        *_duplicates(images),
        *_blank([image for image in images if image.facts.blank]),
        *_notes(images),
        *_told_as_blurred(blurred),
        *_outliers([image for image in shown if image not in blurred]),
    ]


def _duplicates(images: Sequence[TrainingImage]) -> Iterator[Finding]:
    groups = [[images[index] for index in group] for group in near_duplicates([image.facts for image in images])]
    groups = [group for group in groups if not all(image.facts.blank for image in group)]
    if groups:
        extra = sum(len(group) - 1 for group in groups)
        yield Finding(
            "near_duplicates",
            "warning",
            f"{counted(extra, 'image is', 'images are')} nearly identical to another one",
            "What they show counts several times and is memorised first.",
            "Keep one of each.",
            tuple(" = ".join(image.name for image in group) for group in groups),
        )


def _blank(images: Sequence[TrainingImage]) -> Iterator[Finding]:
    if images:
        clear = any(image.facts.has_alpha for image in images)
        why = " Transparent parts are trained as white, so what is white on them cannot be seen." if clear else ""
        yield Finding(
            "blank",
            "warning",
            f"{counted(len(images), 'image shows', 'images show')} nothing but a single color",
            f"There is nothing to learn from them, but that color.{why}",
            "Put a background behind them that differs." if clear else "Remove them.",
            tuple(image.name for image in images),
        )


def _notes(images: Sequence[TrainingImage]) -> Iterator[Finding]:
    for note, (severity, what, consequence, remedy) in NOTES.items():
        names = tuple(image.name for image in images if note in image.facts.notes)
        if names:
            files = "1 file" if len(names) == 1 else f"Each of {len(names)} files"
            yield Finding(f"file_{note}", severity, f"{files} {what}", consequence, remedy, names)


def _blurred(images: Sequence[TrainingImage]) -> list[TrainingImage]:
    if not images:
        return []
    focus = float(np.median([image.facts.focus for image in images]))
    sharpness = float(np.median([image.facts.sharpness for image in images]))
    least, far_less = min(BLURRED, BLURRED_SHARE * focus), SHARP_SHARE * focus
    return [
        image
        for image in images
        if image.facts.focus < least
        or (image.facts.focus < far_less and image.facts.sharpness < SHARPNESS_SHARE * sharpness)
    ]


def _told_as_blurred(blurred: Sequence[TrainingImage]) -> Iterator[Finding]:
    if blurred:
        yield Finding(
            "blurred",
            "warning",
            f"{counted(len(blurred), 'image is', 'images are')} far less sharp than the others",
            "If they are blurred, the LoRA learns the blur.",
            "Look at them, and replace those that are blurred.",
            tuple(image.name for image in blurred),
        )


def _outliers(images: Sequence[TrainingImage]) -> Iterator[Finding]:
    if len(images) < OUTLIERS_FROM:
        return
    facts = [image.facts for image in images]
    looks = np.array([(one.saturation, one.contrast, one.flatness, np.log1p(one.sharpness) / 10) for one in facts])
    from_median = np.abs(looks - np.median(looks, axis=0))
    # 1.4826 converts a normal distribution's median absolute deviation to its standard deviation (Hampel, 1974).
    spread = np.maximum(1.4826 * np.median(from_median, axis=0), LEAST_SPREAD)
    distances = (from_median / spread).max(axis=1)
    outliers = tuple(
        image.name for image, distance in zip(images, distances, strict=True) if distance > OUTLIER_DISTANCE
    )
    if outliers:
        yield Finding(
            "style_outlier",
            "note",
            f"{counted(len(outliers), 'image is', 'images are')} unlike the others in color, contrast or detail",
            "Their look mixes into what the LoRA learns.",
            "Check whether they have the same style, and remove those that do not.",
            outliers,
        )
