"""Near-duplicates are found, and never split between training and validation."""

from __future__ import annotations

import base64
import hashlib
import random
from dataclasses import replace
from pathlib import Path

from lora_crucible.data.images.image_facts import ImageFacts, find_facts
from lora_crucible.data.images.split import near_duplicates, validation_indices
from PIL import Image, ImageDraw, ImageFont


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
        replace(other, look=0, width=1, height=1, content="u"),  # its hash is that of a different image
        replace(one, colour=0x00FF00, content="v"),  # the same drawing in other colours
    ]
    assert near_duplicates(images) == [[0, 2, 4]]
    images[6] = replace(other, width=50, height=40, content="w")
    assert near_duplicates(images) == [[0, 2, 4], [3, 6]]


def small_facts(folder: Path, name: str, image: Image.Image) -> ImageFacts:
    image.save(folder / name)
    return find_facts(folder / name)


def test_pixels_decide_whether_images_are_alike(tmp_path: Path) -> None:
    font = ImageFont.load_default(100)
    found = []
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        drawn = Image.new("RGB", (400, 400), "white")
        ImageDraw.Draw(drawn).text((200, 200), letter, fill="navy", font=font, anchor="mm")
        found.append(small_facts(tmp_path, f"{letter}.png", drawn))
    q = Image.open(tmp_path / "Q.png")
    found.append(small_facts(tmp_path, "Q.jpg", q.resize((300, 300))))
    assert near_duplicates(found) == [[16, 26]]
    assert len(validation_indices(found, 10, 42)) == 3


def test_thousands_that_look_alike_take_no_time_to_tell_apart() -> None:
    draw = random.Random(0)
    smalls = [base64.b64encode(draw.randbytes(1728)).decode() for _ in range(3000)]
    images = [replace(facts(number, look=5), small=small) for number, small in enumerate(smalls)]
    copies = [replace(image, content=f"another {image.content}") for image in images[:2]]
    assert near_duplicates([*images, *copies]) == [[0, 3000], [1, 3001]]


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
