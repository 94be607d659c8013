"""The text of a LoRA stack: reading of its rows, and error messages for mistakes."""

from __future__ import annotations

import pytest
from lora_crucible.errors import CrucibleError
from lora_crucible.formats.lora_rows import LoraRow, read_lora_rows


def test_rows_are_read_in_order():
    text = """
    [
      {"name": "ink.safetensors", "strength_model": 0.8},
      {"name": "styles/oil.safetensors", "strength_model": 1, "strength_clip": -0.5, "enabled": false}
    ]
    """
    assert read_lora_rows(text) == [
        LoraRow("ink.safetensors", 0.8, 0.8, True),
        LoraRow("styles/oil.safetensors", 1.0, -0.5, False),
    ]


@pytest.mark.parametrize("text", ["", " \n", "[]"])
def test_no_rows(text):
    assert read_lora_rows(text) == []


@pytest.mark.parametrize(
    ("settings", "acts"),
    [
        ({"strength_model": 0.1}, True),
        ({"strength_model": 0}, False),
        ({"strength_model": 0, "strength_clip": 0.5}, True),
        ({"strength_model": 0.5, "strength_clip": 0}, True),
        ({"strength_model": 0.5, "enabled": False}, False),
        ({"strength_model": 0.5, "name": "None"}, False),
    ],
)
def test_a_row_acts_when_it_is_on_and_has_a_strength(settings, acts):
    strength_clip = settings.get("strength_clip", settings["strength_model"])
    name = settings.get("name", "ink.safetensors")
    row = LoraRow(name, settings["strength_model"], strength_clip, settings.get("enabled", True))
    assert row.acts == acts


GOOD = '{"name": "ink.safetensors", "strength_model": 1}'


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("ink.safetensors", ["not valid JSON", "line 1, column 1", "Write a list like"]),
        ('[{"name": "ink.safetensors",}]', ["not valid JSON", "line 1", "Write a list like"]),
        (GOOD, ["which is not a list", "ink.safetensors"]),
        (f'[{GOOD}, "oil.safetensors"]', ["Row 2", '"oil.safetensors", which is not an object']),
        ('[{"strength_model": 1}]', ["Row 1", "has no name"]),
        ('[{"name": "ink.safetensors"}]', ["Row 1", "ink.safetensors", "has no strength_model"]),
        (f'[{GOOD}, {{"name": "", "strength_model": 1}}]', ["Row 2", "names no file", "switch it off"]),
        (f'[{GOOD}, {{"name": 3, "strength_model": 1}}]', ["Row 2", "the name 3", "ink.safetensors"]),
        ('[{"name": "a", "strength_model": "0.8"}]', ["Row 1", 'strength_model = "0.8"', "without quotes"]),
        ('[{"name": "a", "strength_model": true}]', ["Row 1", "strength_model = true", "-20 to 20"]),
        ('[{"name": "a", "strength_model": NaN}]', ["Row 1", "strength_model = NaN", "-20 to 20"]),
        ('[{"name": "a", "strength_model": 1e999}]', ["Row 1", "Infinity", "-20 to 20"]),
        ('[{"name": "a", "strength_model": 1, "strength_clip": 21}]', ["Row 1", "strength_clip = 21", "-20 to 20"]),
        ('[{"name": "a", "strength_model": 1, "strength_clip": null}]', ["Row 1", "strength_clip = null"]),
        ('[{"name": "a", "strength_model": 1, "enabled": "no"}]', ["Row 1", 'enabled = "no"', "true or false"]),
        ('[{"name": "a", "strenght_model": 1}]', ["Row 1", "'strenght_model'", "Did you mean strength_model?"]),
        ('[{"name": "a", "weight": 1}]', ["Row 1", "'weight'", "name, strength_model, strength_clip, enabled"]),
    ],
)
def test_a_mistake_is_named_with_its_row_and_what_to_write(text, facts):
    with pytest.raises(CrucibleError) as error:
        read_lora_rows(text)
    for fact in facts:
        assert fact in str(error.value)
