"""A node's widgets and pasted YAML become one config, and a config becomes YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lora_crucible.config import OF_OTHER_NODES, SETTINGS, TrainingConfig, parse_config
from lora_crucible.config.widgets_and_yaml import from_widgets_and_yaml, split_of_other_nodes, to_yaml
from lora_crucible.config.yaml_file import read_config
from lora_crucible.errors import CrucibleError

UNTOUCHED = {name: setting.widget_default for name, setting in SETTINGS.items() if name not in OF_OTHER_NODES}


def merged(text: str, **widgets: Any) -> TrainingConfig:
    return from_widgets_and_yaml({**UNTOUCHED, **widgets}, text)


def refused(text: str, **widgets: Any) -> str:
    with pytest.raises(CrucibleError) as error:
        merged(text, **widgets)
    return str(error.value)


def test_yaml_wins_over_widgets_that_nobody_touched() -> None:
    config = merged("network_dim: 4\nlearning_rate: 2e-4\nseed: 7\ntarget_modules: attention\nlr_warmup_steps: 0\n")
    expected = {"lora_rank": 4, "learning_rate": 2e-4, "seed": 7, "target_modules": "attention", "lr_warmup_steps": 0}
    assert config == TrainingConfig(**expected)


def test_widgets_fill_what_the_yaml_leaves_open() -> None:
    config = merged("lora_rank: 4\nlearning_rate: auto\n", learning_rate=1e-5, epochs=3)
    assert (config.lora_rank, config.epochs) == (4, 3)


def test_the_same_said_twice_is_no_fight() -> None:
    text = "lora_rank: '8'\ngradient_checkpointing: yes\nlearning_rate: 1e-5\n"
    config = merged(text, lora_rank=8, gradient_checkpointing=True, learning_rate=1e-5)
    assert config.lora_rank == 8


def test_a_fight_names_both_and_everything_else_that_is_wrong() -> None:
    text = refused("# mine\nnetwork_dim: 4\nlora_rnk: 3\nbatch_size: 0\nseed: 1\nseed: 2\n", lora_rank=16, batch_size=2)
    assert "4 mistakes in config_yaml and the widgets" in text
    assert (
        "line 2: network_dim = 4 in the YAML, but the widget rank (lora_rank) is 16; set the widget back to auto"
        in text
    )
    for fact in ("line 3: lora_rnk", "line 4: batch_size = 0", "seed is in line 5 and again in line 6"):
        assert fact in text


def test_two_lengths_and_layers_by_name_fight_too() -> None:
    assert "epochs = 3 and max_train_steps = 100 both say" in refused("epochs: 3\n", max_train_steps=100)
    assert "layers by name (layer_patterns) is to_k" in refused("target_modules: [to_q, to_v]\n", layer_patterns="to_k")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora_rank: 8 seed: 3", "All settings of the YAML in config_yaml are on one line"),
        ("lora_rank:8", "The YAML in config_yaml is not a list of settings (there is no space after the colon"),
        ("# nothing\n", "The YAML in config_yaml is empty"),
        ("seed: 1\n  lora_rank: 8\n", "The YAML in config_yaml cannot be understood in line 2"),
    ],
)
def test_what_is_no_yaml_says_what_to_change(text: str, expected: str) -> None:
    assert expected in refused(text)


def test_empty_text_is_no_yaml() -> None:
    assert merged(" \n") == TrainingConfig()


def test_settings_of_other_nodes_are_set_aside() -> None:
    text = "base_model: x\ntrain_data_dir: /secret\nreg_data_dir: /secret\nresolution: 640\nlora_rank: 2\n"
    config, said = split_of_other_nodes(merged(text))
    assert config == TrainingConfig(lora_rank=2, resolution=640)
    assert said == {"train_data_dir": "/secret", "reg_data_dir": "/secret", "base_model": "x"}


EVERYTHING = {
    "base_model": "demo",
    "train_data_dir": "C:\\images # 1",
    "trigger_word": "no",
    "resolution": 768,
    "caption_dropout_rate": 0.0,
    "purpose": "style",
    "lora_rank": 4,
    "learning_rate": 1.5e-5,
    "lr_warmup_steps": 0,
    "loss_weighting": "none",
    "gradient_checkpointing": True,
    "sample_prompts": "a cat: asleep\n水墨画风",
    "sample_negative_prompt": "007",
    "layer_patterns": "to_q rank=4\nto_v",
    "reg_ratio": 0.5,
}


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    config = parse_config(EVERYTHING)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config, {"lora_alpha": "4: because"}), encoding="utf-8")
    assert read_config(path) == config
    assert "#   lora_alpha = 4: because" in path.read_text(encoding="utf-8")
    pasted = {name: value for name, value in EVERYTHING.items() if name not in OF_OTHER_NODES}
    assert from_widgets_and_yaml(UNTOUCHED, to_yaml(parse_config(pasted))).lora_rank == 4


def test_what_only_the_user_knows_is_left_to_fill_in() -> None:
    text = to_yaml(TrainingConfig(seed=3))
    assert text.splitlines() == [
        "train_data_dir: path/to/images  # the folder of the images and their captions, or demo",
        "base_model: path/to/a/model  # the folder of an SD1.5 or SDXL model in diffusers format, or demo",
        "seed: 3",
    ]
