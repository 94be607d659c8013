"""Marks of other programs in captions are told, and ordinary captions are not suspected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lora_crucible.config import DataSettings
from lora_crucible.data.images.captions import finished
from lora_crucible.data.images.load import load_dataset
from lora_crucible.data.images.marks import findings_of_marks
from PIL import Image


@pytest.mark.parametrize(
    ("caption", "mark"),
    [
        ("a photo of [trigger] at home", "[trigger]"),
        ("[filewords], best quality", "[filewords]"),
        ("a {big|small} dog", "{big|small}"),
        ("a {2$$red|green|blue} hat", "{2$$red|green|blue}"),
        ("in __places/city__ at night", "__places/city__"),
        ("<lora:detail:0.7>, a cat", "<lora:detail:0.7>"),
        ("a cat, embedding:easynegative", "embedding:easynegative"),
        ("a cat BREAK a dog", "BREAK"),
        ("a (red:1.3) hat", "(red:1.3)"),
        ("a ((red)) hat", "((red))"),
        ("a [cat:dog:0.5]", "[cat:dog:0.5]"),
        ("1girl ||| sitting", "|||"),
    ],
)
def test_marks_are_quoted_with_their_images(caption: str, mark: str) -> None:
    (finding,) = findings_of_marks([("fine.png", "a dog"), ("odd.png", caption)])
    assert mark in finding.what
    assert finding.images == ("odd.png",)
    assert finding.remedy


@pytest.mark.parametrize(
    "caption",
    [
        r"saber \(fate\), 1girl, :), >_<, ^_^, o_o, :3, (:, ;)",
        "a sign that says [exit], a {curly} frame and a box (of wood)",
        "a clock at 10:30 (morning), ratio 16:9, scale 1:2",
        "two dogs (left: a puppy)",
        "snake_case and __ a line",
        "A BREAKFAST with coffee, take a break",
        "5 < 6 and 7 > 3, I <3 cats",
        "「猫」（黒い）、窓辺",
        "emoji 👩‍🚀 ((",
    ],
)
def test_ordinary_captions_are_no_marks(caption: str) -> None:
    assert findings_of_marks([("a.png", caption)]) == []


def test_the_trigger_word_takes_its_place() -> None:
    settings = DataSettings(trigger_word="ohwx")
    assert finished("a photo of [trigger] at home", settings) == "a photo of ohwx at home"
    assert finished("a photo of [trigger] at home", DataSettings()) == "a photo of [trigger] at home"


def test_letters_that_are_not_seen_or_lost_are_told(tmp_path: Path) -> None:
    texts = ["a\u200bcat\ufeff here", "a smiling dog \ufffd", "a 👩\u200d🚀 in space", "plain words"]
    for index, text in enumerate(texts):
        Image.effect_noise((64, 64), 50 + index).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(text, encoding="utf-8")
    dataset = load_dataset(DataSettings(train_data_dir=str(tmp_path)))
    assert [image.caption for image in dataset.images] == ["acat here", "a smiling dog \ufffd", texts[2], "plain words"]
    told = {finding.kind: finding.images for finding in dataset.findings}
    assert told["unseen_letters"] == ("0.png",)
    assert told["damaged_caption"] == ("1.png",)


def test_half_an_emoji_is_trained_as_a_letter_that_was_lost(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "a cat \ud83d"}))
    dataset = load_dataset(DataSettings(train_data_dir=str(tmp_path)))
    assert dataset.images[0].caption == "a cat \ufffd"
    assert "damaged_caption" in {finding.kind for finding in dataset.findings}


def test_a_guess_about_captions_is_said(tmp_path: Path) -> None:
    for index in range(2):
        Image.effect_noise((64, 64), 50 + index).save(tmp_path / f"{index}.png")
    (tmp_path / "0.txt").write_bytes("黒い猫が窓の外を見ている".encode("cp932"))
    (tmp_path / "1.txt").write_text("a dog")
    dataset = load_dataset(DataSettings(train_data_dir=str(tmp_path)))
    (finding,) = [one for one in dataset.findings if one.kind == "guessed_encoding"]
    assert "Japanese (Shift-JIS), which is a guess" in finding.what
    assert finding.images == ("0.png",)
