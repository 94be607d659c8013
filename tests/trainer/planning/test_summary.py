"""A summary says what is set, what is chosen and why, and what is decided later."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.captioners.dataset import with_captions
from lora_crucible.config import SETTINGS, DataSettings, ModelFacts, TrainingConfig, parse_config
from lora_crucible.config.yaml_file import read_config
from lora_crucible.data.images.dataset import ImageDataset
from lora_crucible.data.images.load import load_dataset
from lora_crucible.planning.summary import DECIDED_BY, summarise

SDXL = ModelFacts("sdxl", 1024, 6.0, "epsilon")


@pytest.fixture(scope="module")
def demo() -> ImageDataset:
    return load_dataset(DataSettings(train_data_dir="demo", validation_percent=5))


def test_every_setting_on_auto_has_what_decides_it() -> None:
    instead = {"epochs", "lr_warmup_ratio", "caption_source", "long_rows", "save_steps", "loader"}
    assert set(DECIDED_BY) == {name for name, setting in SETTINGS.items() if setting.may_be_auto} - instead


def test_alone_it_says_what_will_decide() -> None:
    text = summarise(parse_config({"lora_rank": 64, "epochs": 3}), None, None).text
    assert "Set by hand:\n  lora_rank = 64\n  epochs = 3\n" in text
    assert "  learning_rate: from the optimizer and the model\n" in text
    assert "max_train_steps" not in text
    assert "Connect dataset and model to this node" in text
    assert "Notes:\n  lora_rank = 64: close to full" in text


def test_with_a_dataset_the_purpose_is_known(demo: ImageDataset) -> None:
    text = summarise(TrainingConfig(), demo, None).text
    assert "  purpose = style: the captions name different things" in text
    assert "  lora_rank: from the purpose and the number of images" in text
    assert "Connect model to this node" in text


def test_with_both_every_value_has_its_reason(demo: ImageDataset) -> None:
    text = summarise(TrainingConfig(), demo, SDXL, ["This model is odd."]).text
    assert "  lora_rank = 12: a style affects the whole image (19 images)" in text
    assert "  learning_rate = 0.0001: usual for AdamW on larger models" in text
    assert "Connect" not in text
    later = text.partition("Chosen when training starts:\n")[2].partition("Notes:")[0]
    assert {line.split(":")[0].strip() for line in later.splitlines()} == {"mixed_precision", "measure"}
    assert "Notes:\n  This model is odd." in text


def test_what_auto_stands_for_includes_what_the_dataset_decides(demo: ImageDataset) -> None:
    chosen = summarise(TrainingConfig(), demo, ModelFacts("demo", 64, 4.0, "epsilon")).chosen
    assert (chosen["lora_rank"], chosen["resolution"], chosen["validation_percent"]) == (8, 64, 5)


def test_language_models_are_summarised_in_their_own_words() -> None:
    config = parse_config({"task_type": "text-generation", "lora_rank": 4})
    text = summarise(config, None, ModelFacts("language", parameters=10**9)).text
    assert "  max_seq_length: from the longest row\n" in text
    assert "  batch_size: from the longest row\n" in text
    assert "  lora_alpha: twice the rank\n" in text
    said = text.partition("Connect")[0]
    assert not [word for word in ("purpose", "image", "resolution", "caption", "sample_cfg", "noise") if word in said]


def test_a_language_model_is_connected_as_clip() -> None:
    text = summarise(parse_config({"task_type": "text-generation"}), None, None).text
    assert "Connect dataset and clip to this node" in text


def test_settings_of_texts_that_are_set_by_hand_are_listed() -> None:
    config = parse_config({"task_type": "text-generation", "chat_template": "chatml", "regularization_rows": True})
    text = summarise(config, None, None).text
    assert "Set by hand:\n" in text
    assert "  chat_template = chatml\n" in text
    assert "  regularization_rows = True\n" in text
    assert "task_type" not in text


def test_images_are_summarised_without_settings_of_texts() -> None:
    assert "max_seq_length" not in summarise(TrainingConfig(), None, SDXL).text


def test_what_the_yaml_says_in_vain_is_named(demo: ImageDataset) -> None:
    config = parse_config({"resolution": 512, "caption_dropout_rate": 0.2})
    text = summarise(config, demo, SDXL, said_elsewhere={"base_model": "mine"}).text
    assert "Ignored in config_yaml, because other nodes decide here: base_model = mine, resolution = 512" in text
    assert "caption_dropout_rate = 0.2" not in text.partition("Ignored in config_yaml")[2]


def test_yaml_holds_dataset_and_demo_model(demo: ImageDataset) -> None:
    lines = summarise(parse_config({"lora_rank": 4}), demo, ModelFacts("demo", 64, 4.0, "epsilon")).yaml.splitlines()
    assert {"train_data_dir: demo", "trigger_word: crux", "base_model: demo", "lora_rank: 4"} <= set(lines)
    assert "#   max_train_steps = 400: suits the demo model" in lines


def test_what_a_run_from_the_yaml_would_miss_is_said_in_both(demo: ImageDataset, tmp_path: Path) -> None:
    assert not summarise(TrainingConfig(), demo, SDXL).yaml.startswith("#")
    captioned = with_captions(demo, {demo.images[0].path: "a new caption"})
    summary = summarise(TrainingConfig(), captioned, SDXL)
    assert "\n  Captions of this dataset exist only in the workflow" in summary.text.partition("Notes:")[2]
    assert summary.yaml.startswith("# Captions of this dataset exist only in the workflow")
    path = tmp_path / "config.yaml"
    path.write_text(summary.yaml, encoding="utf-8")
    assert read_config(path).train_data_dir == "demo"
