"""Finding texts that are nearly the same, fast enough for tens of thousands of them."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHINGLE = 3
"""The number of words in a row that are compared as one."""

SAME = 0.8
"""The least share of shingles that near-duplicates have in common (Jaccard similarity). A single other word in a text
of fewer than 29 words makes it another text."""

BANDS, ROWS = 20, 4
"""Texts whose MinHash signatures of BANDS x ROWS numbers agree in one band are compared; near-duplicates that share the
least of `SAME` are missed once in 30,000 times."""

_WORD = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\W\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
"""A word; each sign of a script that is written without spaces is one."""

_FACTORS = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D], dtype=np.uint64)


def plain_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return _WORD.findall(text.casefold())


def similar_texts(texts: Sequence[str]) -> list[list[int]]:
    """Group texts that are the same but for case, punctuation and a few words.

    Returns:
        Groups of two or more indices, in ascending order. No index is in more than one group.
    """
    words = [plain_words(text) for text in texts]
    leader = list(range(len(texts)))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    firsts: dict[tuple[str, ...], int] = {}
    for index, those in enumerate(words):
        leader[index] = firsts.setdefault(tuple(those) or (texts[index].strip(),), index)
    hashes: dict[str, int] = {}
    shingles = {index: _shingles(words[index], hashes) for index in firsts.values() if len(words[index]) > SHINGLE}
    for one, other in _candidates(shingles):
        if find(one) != find(other) and _similarity(shingles[one], shingles[other]) >= SAME:
            low, high = sorted((find(one), find(other)))
            leader[high] = low
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(texts)):
        groups[find(index)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _shingles(words: Sequence[str], hashes: dict[str, int]) -> NDArray[np.uint32]:
    numbers = np.empty(len(words), dtype=np.uint64)
    for place, word in enumerate(words):
        if word not in hashes:
            hashes[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        numbers[place] = hashes[word]
    count = len(words) - SHINGLE + 1
    mixed = sum(numbers[place : place + count] * factor for place, factor in enumerate(_FACTORS))
    return np.unique((np.asarray(mixed, dtype=np.uint64) >> np.uint64(16)).astype(np.uint32))


def _candidates(shingles: dict[int, NDArray[np.uint32]]) -> list[tuple[int, int]]:
    """Return pairs that may be near-duplicates: those whose signatures agree in a band."""
    draw = np.random.default_rng(0)
    factors = draw.integers(1, 2**32, size=(BANDS * ROWS, 1), dtype=np.uint64) | np.uint64(1)
    added = draw.integers(0, 2**32, size=(BANDS * ROWS, 1), dtype=np.uint64)
    buckets: list[dict[bytes, int]] = [{} for _ in range(BANDS)]
    pairs = set()
    for index, numbers in shingles.items():
        hashed = (numbers.astype(np.uint64)[None, :] * factors + added) >> np.uint64(16)
        signature = (hashed & np.uint64(0xFFFFFFFF)).min(axis=1).astype(np.uint32)
        for band, bucket in enumerate(buckets):
            other = bucket.setdefault(signature[band * ROWS : (band + 1) * ROWS].tobytes(), index)
            if other != index:
                pairs.add((other, index))
    return sorted(pairs)


def _similarity(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)
