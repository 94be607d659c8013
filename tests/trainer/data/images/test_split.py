"""Validation images are chosen by their content, and never have a near-duplicate among those that are trained."""

from __future__ import annotations

import base64
import hashlib
import random
from dataclasses import replace

from lora_crucible.data.images.image_facts import ImageFacts
from lora_crucible.data.images.image_measures import COLOUR_SIDE, SMALL_SIDE
from lora_crucible.data.images.split import validation_indices


def facts(number: int) -> ImageFacts:
    content = hashlib.sha256(str(number).encode()).hexdigest()
    small = random.Random(number).randbytes(SMALL_SIDE**2 + 2 * COLOUR_SIDE**2)
    return ImageFacts(100, 80, content, small=base64.b64encode(small).decode())


def test_validation_does_not_depend_on_order_and_leaves_one_to_train() -> None:
    images = [facts(number) for number in range(20)]
    chosen = {images[index].content for index in validation_indices(images, 15, seed=1)}
    assert len(chosen) == 3
    shuffled = random.Random(0).sample(images, 20)
    assert {shuffled[index].content for index in validation_indices(shuffled, 15, seed=1)} == chosen
    assert {images[index].content for index in validation_indices(images, 15, seed=2)} != chosen
    assert validation_indices(images, 0, seed=1) == set()
    assert len(validation_indices(images, 1, seed=1)) == 1
    assert validation_indices(images[:1], 50, seed=1) == set()
    alike = [replace(images[0], content=str(number)) for number in range(4)]
    assert validation_indices(alike, 50, seed=1) == set()
