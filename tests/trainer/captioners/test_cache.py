"""Tests that the same image is not captioned twice, and that no outdated text is used."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_captioner import FakeCaptioner, save_pictures
from lora_crucible.captioners.cache import CaptionCache, identity
from lora_crucible.captioners.options import CaptionStyle


@pytest.fixture
def captioner(tmp_path: Path) -> FakeCaptioner:
    return FakeCaptioner(tmp_path / "model")


def test_texts_are_found_by_the_content_of_the_image(tmp_path: Path, captioner: FakeCaptioner) -> None:
    first, second = save_pictures(tmp_path / "images", 2)
    CaptionCache(tmp_path / "cache", captioner, CaptionStyle()).put(first, "a café\u2028猫")
    cache = CaptionCache(tmp_path / "cache", captioner, CaptionStyle())
    assert cache.get(first) == "a café\u2028猫"
    assert cache.get(second) is None
    moved = tmp_path / "moved.png"
    first.rename(moved)
    assert cache.get(moved) == "a café\u2028猫"
    moved.write_bytes(second.read_bytes())
    assert cache.get(moved) is None


def test_another_style_or_captioner_has_texts_of_its_own(tmp_path: Path, captioner: FakeCaptioner) -> None:
    (image,) = save_pictures(tmp_path / "images", 1)
    CaptionCache(tmp_path / "cache", captioner, CaptionStyle()).put(image, "a cat")
    assert CaptionCache(tmp_path / "cache", captioner, CaptionStyle(detail="short")).get(image) is None
    # Options that this captioner ignores do not matter.
    assert CaptionCache(tmp_path / "cache", captioner, CaptionStyle(rating_tag=True)).get(image) == "a cat"
    (captioner.folder / "config.json").write_text('{"other": 1}')
    assert CaptionCache(tmp_path / "cache", captioner, CaptionStyle()).get(image) is None


def test_a_cache_that_was_cut_off_or_is_shared_is_intact(tmp_path: Path, captioner: FakeCaptioner) -> None:
    images = save_pictures(tmp_path / "images", 3)
    one = CaptionCache(tmp_path / "cache", captioner, CaptionStyle())
    other = CaptionCache(tmp_path / "cache", captioner, CaptionStyle())
    one.put(images[0], "zero")
    with open(one.path, "ab") as file:
        file.write(b'{"image": "ab')
    other.put(images[1], "one")
    one.put(images[2], "two")
    cache = CaptionCache(tmp_path / "cache", captioner, CaptionStyle())
    assert [cache.get(image) for image in images] == ["zero", "one", "two"]


def test_a_models_identity_is_its_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(bytes(3 << 20))
        (tmp_path / name / ".hidden").write_text(name)
    assert identity(tmp_path / "a") == identity(tmp_path / "b")
    with open(tmp_path / "b" / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert identity(tmp_path / "a") != identity(tmp_path / "b")
