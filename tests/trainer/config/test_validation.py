"""Settings are understood as people write them, and everything that is wrong with them is reported at once."""

from __future__ import annotations

import re
from typing import Any

import pytest
from lora_crucible.config import SETTINGS, TrainingConfig, from_widgets, parse_config
from lora_crucible.config.contradictions import ACTS_ONLY_WITH
from lora_crucible.config.foreign_keys import ELSEWHERE
from lora_crucible.config.sample_prompts import read_prompts
from lora_crucible.config.validation import KEYS
from lora_crucible.errors import CrucibleError

ALIASES = {alias: setting.name for setting in SETTINGS.values() for alias in setting.aliases}


@pytest.mark.parametrize(
    ("key", "written", "meant"),
    [
        ("learning_rate", "2e-4", 2e-4),
        ("learning_rate", " 0.0001 ", 1e-4),
        ("max_train_steps", "1e3", 1000),
        ("lora_rank", 16.0, 16),
        ("lora_rank", "auto", None),
        ("lora_rank", None, None),
        ("resolution", "Auto", None),
        ("target_modules", "auto", None),
        ("mixed_precision", "no", "fp32"),
        ("mixed_precision", False, "fp32"),
        ("mixed_precision", "BF16", "bf16"),
        ("mixed_precision", "", "auto"),
        ("save_precision", "float", "fp32"),
        ("gradient_checkpointing", "yes", True),
        ("lr_warmup_steps", 0, 0),
        ("trigger_word", 2024, "2024"),
        ("trigger_word", None, ""),
        ("train_data_dir", "", None),
        ("output_name", "aki.safetensors", "aki"),
        ("sample_prompts", ["a cat", "a dog"], "a cat\na dog"),
        ("extra_resolutions", ["512", "768"], "512, 768"),
        ("seed", "9223372036854775807", 2**63 - 1),
        ("optimizer", "AdamW", "adamw"),
        ("optimizer", "AdaFactor", "adafactor"),
        ("optimizer", "adamw_torch", "adamw"),
        ("lr_scheduler", "constant_with_warmup", "constant"),
        ("lr_scheduler", "auto", None),
        ("lr_warmup_ratio", 0, 0.0),
        ("loss_type", "l2", "mse"),
        ("timestep_sampling", "sigmoid", "logit_normal"),
        ("timestep_shift", "auto", None),
    ],
)
def test_values_as_people_write_them(key: str, written: Any, meant: Any) -> None:
    value = getattr(parse_config({key: written}), key)
    assert (value, type(value)) == (meant, type(meant))


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_other_trainers_names_are_understood(alias: str, name: str) -> None:
    setting = SETTINGS[name]
    number = 16 if setting.maximum is None else min(16, setting.maximum)
    value = {"switch": True, "choice": setting.choices[-1:], "text": "16"}.get(setting.kind, number)
    value = value[0] if isinstance(value, tuple) else value
    ruler = {other: choice for other, choice in [ACTS_ONLY_WITH.get(name, ("", ""))] if other}
    ruler |= {"task_type": setting.task} if setting.task else {}
    assert getattr(parse_config({alias: value, **ruler}), name) == value


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("lora_rank", 0, "from 1 to 512, or auto"),
        ("lora_rank", 8.5, "a whole number from 1 to 512"),
        ("lora_rank", True, "a whole number"),
        ("learning_rate", 0, "above 0 and up to 1"),
        ("learning_rate", "0,0002", "a number above 0"),
        ("learning_rate", "nan", "above 0 and up to 1"),
        ("max_grad_norm", 0, "from 0.01 to 1000"),
        ("weight_decay", "auto", "from 0 to 1"),
        ("epochs", "10,000,000", "from 1 to 10,000"),
        ("mixed_precision", "bf61", "did you mean bf16?"),
        ("target_modules", "everything", "one of auto, attention, attention_and_feed_forward"),
        ("gradient_checkpointing", "perhaps", "true or false"),
        ("seed", -1, "from 0 to"),
        ("optimizer", "adamw9bit", "did you mean adamw_8bit?"),
        ("lr_scheduler", "cosin", "did you mean cosine?"),
        ("lr_warmup_ratio", 5, "from 0 to 0.9"),
        ("ema_decay", 1, "from 0 to 0.9999"),
        ("timestep_shift", 0, "above 0 and up to 100"),
        ("train_data_dir", ["a", "b"], "text"),
        ("output_name", "characters/aki", "folders belong in output_dir"),
        ("extra_resolutions", "512 x 768", "x is not one"),
        ("output_name", "..", "a file name"),
        ("output_name", "", "a file name"),
    ],
)
def test_wrong_value_is_shown_with_what_is_valid(key: str, value: Any, expected: str) -> None:
    with pytest.raises(CrucibleError) as error:
        parse_config({key: value})
    assert key in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("lora_rnk", "lora_rank"),
        ("Learning-Rate", "learning_rate"),
        ("network_dimm", "network_dim"),
        ("gradient_acumulation", "gradient_accumulation"),
    ],
)
def test_unknown_key_names_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(CrucibleError, match=rf"{wrong} is not a known key; did you mean {right}"):
        parse_config({wrong: 1})


def test_unknown_key_that_is_like_none_lists_all() -> None:
    with pytest.raises(CrucibleError, match=r"valid keys are train_data_dir, trigger_word") as error:
        parse_config({"zzz": 1, "caption_extent": 2})
    assert str(error.value).count("valid keys are") == 1


@pytest.mark.parametrize(("key", "instead"), ELSEWHERE.items())
def test_keys_of_other_trainers_say_what_to_write_here(key: str, instead: str) -> None:
    assert key not in KEYS
    with pytest.raises(CrucibleError) as error:
        parse_config({key: 1})
    assert f"{key} is a key of other trainers; {instead}" in str(error.value)
    assert "did you mean" not in str(error.value)
    assert "valid keys are" not in str(error.value)


def test_advice_on_other_trainers_keys_names_settings_that_exist() -> None:
    named = {word for text in ELSEWHERE.values() for word in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", text)}
    assert named - {"adamw_8bit"} - set(SETTINGS) <= {"linear_and_convolution"}


@pytest.mark.parametrize("value", [{"base_model": "demo"}, [{"folder_path": "x"}]])
def test_a_section_is_called_so(value: Any) -> None:
    with pytest.raises(CrucibleError, match=r"settings is a section; write its settings without it"):
        parse_config({"settings": value})


@pytest.mark.parametrize("key", ["\ufefflora_rank", "lora_rank\u200b", "\uff4c\uff4f\uff52\uff41_rank"])
def test_keys_with_letters_that_look_the_same(key: str) -> None:
    assert parse_config({key: 7}).lora_rank == 7


@pytest.mark.parametrize(
    "written", ["\u201cohwx\u201d", "\u201eohwx\u201c", "\u2018ohwx\u2019", '"ohwx"', "\u200bohwx\ufeff"]
)
def test_quotes_and_invisible_letters_are_no_part_of_a_word(written: str) -> None:
    assert parse_config({"trigger_word": written}).trigger_word == "ohwx"


def test_a_quote_inside_a_text_stays() -> None:
    assert (
        parse_config({"trigger_word": "\u201ca\u201d b \u201cc\u201d"}).trigger_word == "\u201ca\u201d b \u201cc\u201d"
    )
    assert parse_config({"trigger_word": "rock 'n' roll"}).trigger_word == "rock 'n' roll"


@pytest.mark.parametrize("written", ["512,512", "512 x 512", [512, 512], ["512", "512"]])
def test_a_square_resolution_as_other_trainers_write_it(written: Any) -> None:
    assert parse_config({"resolution": written}).resolution == 512


def test_a_resolution_that_is_not_square_says_which_number_to_write() -> None:
    with pytest.raises(CrucibleError, match=r"resolution = 1024,768, but .*own aspect ratio.*such as 896"):
        parse_config({"resolution": "1024,768"})


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ("a dog --n blurry --w 512", r"options --n, --w of another program.*sample_negative_prompt and resolution"),
        ("a cat\n--prompt a castle --negative_prompt trees", r"options --prompt, --negative_prompt"),
        ("prompts/my prompts.txt", r"is the name of a file.*one per line"),
    ],
)
def test_prompts_for_another_program_are_refused(prompts: str, said: str) -> None:
    with pytest.raises(CrucibleError, match=rf"sample_prompts: .*{said}"):
        parse_config({"sample_prompts": prompts})


def test_comments_are_no_prompts() -> None:
    text = "# mine\n\n a dog -- running \n  # no\na cat"
    assert read_prompts(parse_config({"sample_prompts": text}).sample_prompts) == ["a dog -- running", "a cat"]


def test_all_mistakes_are_shown_at_once() -> None:
    wrong = {"lora_rnk": 8, "batch_size": 0, "learning_rate": 5, "num_train_epochs": 3, "max_steps": 100}
    with pytest.raises(CrucibleError) as error:
        parse_config(wrong)
    text = str(error.value)
    assert "4 mistakes" in text
    assert all(key in text for key in wrong)
    assert "num_train_epochs = 3 and max_steps = 100 both say how long" in text


def test_two_names_of_one_setting_are_refused_rather_than_one_ignored() -> None:
    with pytest.raises(CrucibleError, match="lora_rank and network_dim are two names"):
        parse_config({"lora_rank": 8, "network_dim": 16})


def test_automatic_epochs_beside_steps_are_no_contradiction() -> None:
    assert parse_config({"epochs": "auto", "max_train_steps": 100}).max_train_steps == 100


def test_a_long_wrong_value_is_cut_off() -> None:
    with pytest.raises(CrucibleError) as error:
        parse_config({"lora_rank": "x" * 10_000})
    assert len(str(error.value)) < 400


def test_a_wrong_value_is_quoted_as_it_was_written() -> None:
    with pytest.raises(CrucibleError, match=r"learning_rate = 20e-1, but"):
        parse_config({"learning_rate": "20e-1"})


def test_minus_one_in_a_widget_is_auto_only_where_a_run_can_choose() -> None:
    config = from_widgets({"lora_rank": -1, "learning_rate": -1.0, "seed": 0, "noise_offset": 0.0})
    assert config == TrainingConfig(seed=0)
    with pytest.raises(CrucibleError, match="sample_steps = -1"):
        from_widgets({"sample_steps": -1})


def test_lists_of_layers_are_patterns() -> None:
    assert parse_config({"target_modules": ["q_proj", "v_proj"]}).layer_patterns == "q_proj\nv_proj"
    assert parse_config({"target_modules": "to_q, to_v"}).layer_patterns == "to_q, to_v"
    with pytest.raises(CrucibleError, match=r"layer_patterns = to_q rank=x, but 'to_q rank=x' cannot be read"):
        parse_config({"layer_patterns": "to_q rank=x"})


def test_settings_that_fight_each_other_are_named_together() -> None:
    with pytest.raises(CrucibleError, match=r"dropout = 0\.1 with algorithm = lokr") as error:
        parse_config({"network_dropout": 1, "lora_dropout": 0.1, "algorithm": "lokr"})
    assert "2 mistakes" in str(error.value)


@pytest.mark.parametrize(
    ("written", "share"), [("10%", 0.1), (" 2.5 % ", 0.025), ("0.1", 0.1), (0.05, 0.05), ("0%", 0)]
)
@pytest.mark.parametrize("key", ["warmup_steps", "lr_warmup_steps", "num_warmup_steps"])
def test_a_warmup_may_be_a_share_of_the_steps(key, written, share):
    config = parse_config({key: written})
    assert (config.lr_warmup_steps, config.lr_warmup_ratio) == (None, share)


def test_warmup_steps_stay_steps():
    assert [parse_config({"warmup_steps": steps}).lr_warmup_steps for steps in (0, "1", 100, "1e2", "auto")] == [
        *(0, 1, 100, 100, None)
    ]


def test_a_warmup_that_is_longer_than_the_run_says_how_to_write_a_share():
    with pytest.raises(
        CrucibleError, match=r"warmup_steps = 100%, but it must be .*, a share of all steps such as 10%"
    ):
        parse_config({"warmup_steps": "100%"})


def test_two_warmups_are_one_too_many():
    with pytest.raises(CrucibleError, match="warmup_steps and warmup_ratio are two names of the same setting"):
        parse_config({"warmup_steps": "10%", "warmup_ratio": 0.1})
