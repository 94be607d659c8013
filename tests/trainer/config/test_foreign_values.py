"""Keys of other trainers are understood where they mean the same, and answered where they do not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from lora_crucible.config import SETTINGS, TrainingConfig, parse_config
from lora_crucible.config.foreign_keys import ELSEWHERE
from lora_crucible.config.foreign_values import FOREIGN
from lora_crucible.config.validation import KEYS
from lora_crucible.config.widgets_and_yaml import from_widgets_and_yaml
from lora_crucible.errors import CrucibleError

TEXT = {"task_type": "text-generation"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"fp16": "true"}, {"mixed_precision": "fp16"}),
        ({"fp16": False, "bf16": True}, {"mixed_precision": "bf16"}),
        ({"bnb_4bit_compute_dtype": "bfloat16", "bf16": "true"}, {"mixed_precision": "bf16"}),
        ({"adapter": "qlora", "load_in_4bit": "true", "load_in_8bit": "false"}, {"load_in_4bit": True}),
        ({"quantization_bit": "4"}, {"load_in_4bit": True}),
        ({"lora_target_linear": True}, {"target_modules": "linear"}),
        ({"lora_target": "all"}, {"target_modules": "linear"}),
        ({"target_modules": "all-linear"}, {"target_modules": "linear"}),
        ({"use_rslora": True, "bias": "none", "peft_type": "LORA"}, {"algorithm": "rslora"}),
        ({"stage": "sft", "finetuning_type": "lora", "do_train": True, "logging_steps": 10}, {}),
        ({"num_train_epochs": "3.0", "max_steps": "-1"}, {"epochs": 3}),
        ({"max_steps": "60"}, {"max_train_steps": 60}),
        (
            {"r": 16, "cutoff_len": 512, "micro_batch_size": 2},
            {"lora_rank": 16, "max_seq_length": 512, "batch_size": 2},
        ),
        ({"optim": "paged_adamw_32bit"}, {"optimizer": "adamw"}),
        ({"report_to": ["none"]}, {"report_to": "none"}),
        ({"task_type": "CAUSAL_LM"}, {}),
    ],
)
def test_same_meaning_is_understood(written: dict[str, Any], meant: dict[str, Any]) -> None:
    assert parse_config({**TEXT, **written}) == parse_config({**TEXT, **meant})


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"stage": "dpo"}, "stage = dpo is of other trainers; language models are trained on texts"),
        ({"load_in_8bit": True}, "load_in_4bit: true holds the model in 4 bits"),
        ({"bnb_4bit_quant_type": "fp4"}, "4-bit weights are always NF4"),
        ({"packing": True}, "rows are not packed"),
        ({"trust_remote_code": True}, "code that comes with a model is never run"),
        ({"fp16": True, "bf16": True}, "fp16 and bf16 are two names of the same setting"),
        ({"fp16": True, "mixed_precision": "bf16"}, "fp16 and mixed_precision are two names of the same setting"),
        ({"lora_r": 8, "r": 8}, "lora_r and r are two names of the same setting"),
        ({"fp16": "perhaps"}, "fp16 = perhaps is of other trainers; the key is mixed_precision"),
        ({"template": "qwen"}, "chat_template says it"),
        ({"val_set_size": 0.05}, "validation_percent says how much is held out, in percent"),
    ],
)
def test_other_meanings_are_answered(written: dict[str, Any], expected: str) -> None:
    with pytest.raises(CrucibleError, match=re.escape(expected)):
        parse_config({**TEXT, **written})


def test_no_key_is_in_two_tables() -> None:
    assert not set(FOREIGN) & set(ELSEWHERE)
    assert set(FOREIGN) & set(KEYS) == {"max_steps"}  # -1 stands for no limit; other values are steps


def test_all_meanings_are_settings() -> None:
    for foreign in FOREIGN.values():
        for settings in foreign.meanings.values():
            assert set(settings) <= set(SETTINGS)
            parse_config(settings | (TEXT if "load_in_4bit" in settings else {}))


def test_advice_names_settings_that_exist() -> None:
    words = {word for one in FOREIGN.values() for word in re.findall(r"\b[a-z]+(?:_[a-z0-9]+)+\b", one.instead)}
    assert words <= set(SETTINGS)


def test_pasted_yaml_is_understood_beside_widgets() -> None:
    config = from_widgets_and_yaml({"mixed_precision": "auto"}, "fp16: true\n")
    assert config == TrainingConfig(mixed_precision="fp16")
    with pytest.raises(CrucibleError, match="fp16 = fp16 in the YAML, but the widget precision"):
        from_widgets_and_yaml({"mixed_precision": "bf16"}, "fp16: true\n")
