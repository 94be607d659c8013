"""A node's widgets and pasted YAML become one config, and a config becomes YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lora_crucible.config import OF_OTHER_NODES, SETTINGS, TrainingConfig, parse_config
from lora_crucible.config.paths import find_path
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
    paths = {name: getattr(config, name) for name in SETTINGS if SETTINGS[name].path and getattr(config, name)}
    counted = {
        name: path if path == "demo" else str(find_path(path, tmp_path, "path").path) for name, path in paths.items()
    }
    assert read_config(path) == config.model_copy(update=counted)
    assert "#   lora_alpha = 4: because" in path.read_text(encoding="utf-8")
    pasted = {name: value for name, value in EVERYTHING.items() if name not in OF_OTHER_NODES}
    assert from_widgets_and_yaml(UNTOUCHED, to_yaml(parse_config(pasted))).lora_rank == 4


def test_what_only_the_user_knows_is_left_to_fill_in() -> None:
    text = to_yaml(TrainingConfig(seed=3))
    assert text.splitlines() == [
        "train_data_dir: path/to/images  # the folder of the images and their captions, or demo",
        "base_model: path/to/a/model  # a .safetensors file, a folder in diffusers' format, or demo",
        "seed: 3",
    ]


def test_a_language_model_has_placeholders_of_its_own() -> None:
    lines = to_yaml(TrainingConfig(task_type="text-generation")).splitlines()
    assert lines == [
        "train_data_dir: path/to/rows.jsonl  # a file or folder of rows, or demo",
        "base_model: path/to/a/model  # the folder of the language model in transformers' format, or demo",
        "task_type: text-generation",
    ]


@pytest.mark.parametrize("text", ["", "lora_rank: 4", "task_type: CAUSAL_LM", "task_type: text-generation"])
def test_a_config_has_the_task_of_its_node(text: str) -> None:
    config = from_widgets_and_yaml({"seed": 1}, text, "text-generation")
    assert config.task_type == "text-generation"
    assert split_of_other_nodes(config)[0].task_type == "text-generation"


def test_yaml_of_the_other_task_is_sent_to_the_other_node() -> None:
    with pytest.raises(CrucibleError) as error:
        from_widgets_and_yaml({}, "task_type: text-to-image", "text-generation")
    assert "this node configures language models; use Configure LoRA (Crucible) for this YAML" in str(error.value)
    with pytest.raises(CrucibleError) as error:
        from_widgets_and_yaml({}, "seed: 1\ntask_type: causal_lm")
    assert "line 2: task_type = causal_lm in the YAML, but this node configures images" in str(error.value)
    assert "use Configure Language LoRA (Crucible) for this YAML" in str(error.value)
    with pytest.raises(CrucibleError, match=r"task_type = poems in the YAML, .*; remove the line"):
        from_widgets_and_yaml({}, "task_type: poems")


def test_settings_of_images_are_refused_only_if_they_were_changed() -> None:
    widgets = {name: SETTINGS[name].widget_default for name in UNTOUCHED}
    assert from_widgets_and_yaml(widgets, "", "text-generation").task_type == "text-generation"
    with pytest.raises(CrucibleError, match="sample_cfg = 5 only has a meaning for images"):
        from_widgets_and_yaml({**widgets, "sample_cfg": 5.0}, "", "text-generation")


def test_settings_of_a_dataset_of_texts_are_not_those_of_the_training() -> None:
    text = "regularization_rows: true\nmax_seq_length: 64\nload_in_4bit: true\nmax_new_tokens: 9"
    config, said = split_of_other_nodes(from_widgets_and_yaml({}, text, "text-generation"))
    assert said == {"regularization_rows": True, "max_seq_length": 64, "load_in_4bit": True}
    assert config.max_new_tokens == 9
