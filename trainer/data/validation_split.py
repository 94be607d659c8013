"""Choosing the examples to hold out for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence


def held_out_indices(contents: Sequence[str], alike: Collection[int], percent: float, seed: int) -> set[int]:
    """Choose the indices of examples to hold out for validation: about `percent` of them, but never all.

    The choice depends on their content and the seed, not on their names and order.

    Args:
        contents: the content of each example, or a hash of it.
        alike: the indices of examples that resemble others. They are never chosen, because the model would know them
            from training.
        percent: the percentage of examples to hold out; above 0, at least one is.
        seed: another seed chooses other examples.
    """
    wanted = round(len(contents) * percent / 100)
    if percent > 0:
        wanted = max(1, wanted)
    free = [index for index in range(len(contents)) if index not in alike]
    free.sort(key=lambda index: hashlib.sha256(f"{seed}|{contents[index]}".encode("utf-8", "surrogatepass")).digest())
    return set(free[: min(wanted, len(contents) - 1)])
