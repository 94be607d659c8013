"""Choosing the images to hold out for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from .duplicates import near_duplicates
from .image_facts import ImageFacts


def validation_indices(facts: Sequence[ImageFacts], percent: float, seed: int) -> set[int]:
    """Choose the indices of images to hold out for validation: about `percent` of them, but never all.

    The choice depends on their content and the seed, not on their names and order. Near-duplicates of other images are
    never chosen, because the model would know them from training.
    """
    wanted = round(len(facts) * percent / 100)
    if percent > 0:
        wanted = max(1, wanted)
    alike = {index for group in near_duplicates(facts) for index in group}
    free = [index for index in range(len(facts)) if index not in alike]
    free.sort(key=lambda index: hashlib.sha256(f"{seed}|{facts[index].content}".encode()).digest())
    return set(free[: min(wanted, len(facts) - 1)])
