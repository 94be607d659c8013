"""Tests of the preview that is shown while a captioner works."""

from __future__ import annotations

import tiny_captioners as tiny
from lora_crucible.captioners.preview import SIDE, captioned_picture


def test_the_caption_stands_below_the_image() -> None:
    image = tiny.picture(1, (300, 200))
    one = captioned_picture(image, "a cat")
    other = captioned_picture(image, "一只猫, and a very long caption " * 9)
    assert one.width == other.width == SIDE
    assert one.size == other.size
    assert one.crop((0, 0, 300, 200)).tobytes() == other.crop((0, 0, 300, 200)).tobytes()
    assert one.tobytes() != other.tobytes()
    assert image.size == (300, 200)
