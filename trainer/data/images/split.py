"""Choosing the images to hold out for validation."""

from __future__ import annotations

from collections.abc import Sequence

from ..validation_split import held_out_indices
from .duplicates import near_duplicates
from .image_facts import ImageFacts


def validation_indices(facts: Sequence[ImageFacts], percent: float, seed: int) -> set[int]:
    """Choose the indices of images to hold out for validation: about `percent` of them, but never all.

    The choice depends on their content and the seed, not on their names and order. Near-duplicates of other images are
    never chosen.
    """
    alike = {index for group in near_duplicates(facts) for index in group}
    return held_out_indices([one.content for one in facts], alike, percent, seed)
