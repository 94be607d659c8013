"""The purpose of a dataset is guessed from its captions and its trigger word."""

from __future__ import annotations

import pytest
from lora_crucible.config import DataSettings
from lora_crucible.data.images.likely_purpose import likely_purpose
from lora_crucible.data.images.load import load_dataset

VARIED = [
    "aki, a lighthouse by the sea",
    "aki, an old tractor",
    "aki, two cats asleep",
    "aki, a bowl of fruit",
    "aki, mountains at dusk",
    "aki, a crowded market",
    "aki, a steam train",
    "aki, an owl in the rain",
]


@pytest.mark.parametrize(
    ("captions", "purpose", "reason"),
    [
        (VARIED, "style", "name different things"),
        (["a dog in the style of aki", "a house, aki style", "aki style, a boat"], "style", "mention a style"),
        (["aki, a woman in a park", "aki, a woman, close-up", "aki, woman reading"], "character", '"woman"'),
        (["1girl, solo, aki, red dress", "1girl, aki, sitting", "1girl, aki, from side"], "character", '"1girl"'),
        (["aki, front", "aki, side, sitting", "aki, full body"], "character", "say how a character is seen"),
        (["a mug of aki on a table", "the aki mug held in a hand", "aki mug, front"], "object", '"mug"'),
        (["aki logo on a shirt", "aki logo, red", "a sign with the aki logo"], "object", "a logo, icon or lettering"),
        (["aki", "aki", "aki"], "concept", "no captions of their own"),
        ([], "concept", "no captions of their own"),
        (VARIED[:3], "concept", "do not tell"),
        (["aki,一只猫", "aki,一座山"] * 4, "concept", "do not tell"),
    ],
)
def test_captions_tell(captions: list[str], purpose: str, reason: str) -> None:
    found, why = likely_purpose(captions, "aki")
    assert found == purpose
    assert reason in why


def test_the_trigger_word_tells() -> None:
    assert likely_purpose(["a woman", "a woman"], "aki-style")[0] == "style"


def test_the_demo_dataset_is_a_style() -> None:
    assert load_dataset(DataSettings(train_data_dir="demo")).likely_purpose()[0] == "style"
