"""Near-duplicates are found, and never split between training and validation."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

from lora_crucible.data.images.image_facts import ImageFacts
from lora_crucible.data.images.split import near_duplicates, validation_indices


def facts(number: int, look: int | None = None) -> ImageFacts:
    content = hashlib.sha256(str(number).encode()).hexdigest()
    return ImageFacts(100, 80, content, int(content[:16], 16) if look is None else look, sharpness=50.0)


def test_groups_of_images_that_look_alike() -> None:
    one, other = facts(1), facts(2)
    images = [
        one,
        facts(3),
        replace(one, look=one.look ^ 0b111, content="x"),
        other,
        replace(one, look=one.look ^ 0b111000, content="y"),  # like the first, if not like its other copy
        replace(other, width=80, height=100, content="z"),  # another crop
        replace(other, look=0, width=1, height=1),  # its hash is that of a different image
        replace(one, colour=0x00FF00, content="v"),  # the same drawing in other colours
    ]
    assert near_duplicates(images) == [[0, 2, 4]]
    images[6] = replace(other, width=50, height=40, content="w")
    assert near_duplicates(images) == [[0, 2, 4], [3, 6]]


def test_many_images_are_compared_with_all_others() -> None:
    images = [facts(number) for number in range(600)]
    images.append(replace(images[10], content="copy"))
    assert near_duplicates(images) == [[10, 600]]


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
