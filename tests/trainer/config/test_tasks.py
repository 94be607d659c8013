"""Settings of the other task are refused if the user changed them, and never otherwise."""

from __future__ import annotations

import re
from typing import Any

import pytest
from lora_crucible.config import SETTINGS, Setting, parse_config
from lora_crucible.config.text_settings import TextSettings
from lora_crucible.config.validation import check_values
from lora_crucible.errors import CrucibleError

TEXT = {"task_type": "text-generation"}

OTHER_TASK = {"text-to-image": TEXT, "text-generation": {"task_type": "text-to-image"}}


def changed(setting: Setting) -> Any:
    """Return a valid value of a setting that is not its default."""
    if setting.kind == "switch":
        return not setting.default
    if setting.kind == "choice":
        return setting.choices[-1]
    if setting.kind == "text":
        return "512" if setting.name == "extra_resolutions" else "some words"
    assert setting.minimum is not None
    assert setting.step is not None
    return next(value for value in (setting.minimum + setting.step, setting.maximum) if value != setting.default)


of_one_task = [setting for setting in SETTINGS.values() if setting.task]


@pytest.mark.parametrize("setting", of_one_task, ids=[setting.name for setting in of_one_task])
def test_what_was_changed_is_refused_by_name_and_its_default_is_not(setting: Setting) -> None:
    assert setting.task is not None
    task = OTHER_TASK[setting.task]
    parse_config({**task, setting.name: setting.default})
    config, problems = check_values({**task, setting.name: changed(setting)})
    assert config is None
    texts = [problem.text for problem in problems if problem.keys == (setting.name,)]
    (text,) = [text for text in texts if "only has a meaning for" in text]
    assert setting.instead in text


def test_all_settings_of_the_other_task_at_their_defaults_are_no_mistake() -> None:
    defaults = {name: setting.widget_default for name, setting in SETTINGS.items() if setting.kind != "text"}
    shown = {name: value for name, value in defaults.items() if value not in (-1, -1.0)}
    assert parse_config({**shown, **TEXT}).task_type == "text-generation"


def test_the_reason_says_whether_the_task_was_set() -> None:
    with pytest.raises(CrucibleError) as error:
        parse_config({"task_type": "CAUSAL_LM", "resolution": 512})
    said = "resolution = 512 only has a meaning for images, but task_type is text-generation; max_seq_length says how"
    assert said in str(error.value)
    with pytest.raises(CrucibleError) as error:
        parse_config({"cutoff_len": 512})
    assert re.search(
        r"cutoff_len = 512 only has a meaning for language models, but this run trains images, because task_type is "
        r"not set; set task_type: text-generation if that is what you train; otherwise resolution says",
        str(error.value),
    )


@pytest.mark.parametrize("value", [{"caption_dropout_rate": 0}, {"loss_weighting": "none"}, {"sample_cfg": 1}])
def test_what_holds_for_every_language_model_may_be_said(value: dict[str, Any]) -> None:
    parse_config({**TEXT, **value})


@pytest.mark.parametrize("purpose", ["character", "style", "object", "concept"])
def test_purposes_of_images_mean_nothing_for_texts(purpose: str) -> None:
    with pytest.raises(CrucibleError, match=f"purpose = {purpose} says what images show"):
        parse_config({**TEXT, "purpose": purpose})
    for usual in ("auto", "quick_test"):
        assert parse_config({**TEXT, "purpose": usual}).purpose == usual


def test_options_in_prompts_are_only_a_mistake_for_images() -> None:
    assert parse_config({**TEXT, "sample_prompts": ["What does ls --n do?"]}).sample_prompts
    with pytest.raises(CrucibleError, match="drawn as words"):
        parse_config({"sample_prompts": ["a cat --n dog"]})


def test_every_setting_of_texts_but_the_task_belongs_to_texts() -> None:
    assert {SETTINGS[name].task for name in TextSettings.model_fields if name != "task_type"} == {"text-generation"}
