from __future__ import annotations

import pytest
from lora_crucible.config import from_widgets, parse_config
from lora_crucible.config.schema import SETTINGS
from lora_crucible.errors import CrucibleError


@pytest.mark.parametrize(
    ("written", "limit"),
    [("8", 8e9), ("8 GB", 8e9), ("8GB", 8e9), (" 7.5 gb ", 7.5e9), (12, 12e9), (0.5, 0.5e9)],
)
def test_a_number_of_gigabytes_is_a_limit(written, limit):
    config = parse_config({"memory": written})
    assert config.memory_limit == limit
    assert parse_config({"memory": config.memory}) == config


@pytest.mark.parametrize(("written", "meant"), [("auto", "auto"), ("AUTO", "auto"), ("", "auto"), ("Fixed", "fixed")])
def test_words_set_no_limit(written, meant):
    config = parse_config({"memory": written})
    assert (config.memory, config.memory_limit) == (meant, None)


@pytest.mark.parametrize("written", ["0", "-3", "8 apples", "much", "8 MB", "true"])
def test_anything_else_is_a_mistake(written):
    with pytest.raises(CrucibleError, match=rf"memory = {written}, but it must be auto, fixed, or a number of GB"):
        parse_config({"memory": written})


def test_its_widget_shows_auto():
    assert SETTINGS["memory"].widget_default == "auto"
    assert from_widgets({"memory": "auto"}).memory == "auto"
