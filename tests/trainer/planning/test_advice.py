"""There are notes about settings that are valid but surprise people later, and about no others."""

from __future__ import annotations

from typing import Any

import pytest
from lora_crucible.config import DatasetFacts, ModelFacts, parse_config
from lora_crucible.planning.advice import notes
from lora_crucible.planning.resolve import resolve

SDXL = ModelFacts("sdxl", 1024, 6.0, "epsilon")
FLUX = ModelFacts("flux1", 1024, 1.0, "flow")
DEMO = ModelFacts("demo", 64, 4.0, "epsilon")


def said(model: ModelFacts = SDXL, images: int = 40, trigger_word: str = "", **values: Any) -> str:
    dataset = DatasetFacts(images, (images,), trigger_word=trigger_word)
    config = resolve(parse_config({"purpose": "style", **values}), dataset, model).values
    return "\n".join(notes(config, dataset, model))


def test_usual_settings_need_no_words() -> None:
    for model in (SDXL, FLUX, DEMO):
        assert said(model) == ""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lora_rank": 64}, "lora_rank = 64: close to full fine-tuning, and overfits small datasets"),
        ({"algorithm": "dora"}, "fully applied only by ComfyUI and Forge; diffusers ignores its scales"),
        ({"algorithm": "loha"}, "algorithm = loha: read by ComfyUI, A1111 and Forge, but not by diffusers"),
        ({"algorithm": "lokr"}, "algorithm = lokr"),
        ({"batch_size": 1, "gradient_accumulation_steps": 1}, "gradient_accumulation_steps = 4"),
        ({"lora_rank": 8, "lora_alpha": 32}, "the LoRA is scaled by alpha / rank = 4."),
        ({"lora_rank": 8, "lora_alpha": 3}, "the LoRA is scaled by alpha / rank = 0.38."),
        ({"learning_rate": 1e-3}, "10 times the usual value for AdamW"),
        ({"resolution": 256}, "below 384 pixels"),
        ({"purpose": "quick_test"}, "not meant for use"),
        ({"max_train_steps": 3000}, "Every image is shown about 300 times"),
    ],
)
def test_what_surprises_is_said(values: dict[str, Any], expected: str) -> None:
    assert expected in said(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"lora_rank": 63},
        {"algorithm": "rslora", "lora_rank": 16, "lora_alpha": 4},
        {"lora_rank": 16, "lora_alpha": 8},
        {"batch_size": 2, "gradient_accumulation_steps": 2},
        {"learning_rate": 4e-4},
        {"resolution": 384},
        {"max_train_steps": 1900},
    ],
)
def test_what_is_usual_enough_is_not(values: dict[str, Any]) -> None:
    assert said(**values) == ""


def test_the_text_encoder_is_suggested_where_a_new_word_could_need_it() -> None:
    for_a_word = {"trigger_word": "aki", "purpose": "character"}
    assert 'if "aki" does not call up' in said(**for_a_word)
    assert said(FLUX, **for_a_word) == ""  # its text encoder is a language model
    assert "train_text_encoder" not in said(**for_a_word, train_text_encoder=True)
    assert said(purpose="character") == ""  # there is no trigger word
    assert said(purpose="style", trigger_word="aki") == ""  # a style needs no new word


def test_only_what_is_known_is_judged() -> None:
    """A dataset and a model may not be connected yet."""
    assert notes(parse_config({})) == ()
    (note,) = notes(parse_config({"lora_rank": 128, "learning_rate": 0.1}))
    assert "lora_rank = 128" in note


def test_a_model_without_a_dataset_is_enough_to_judge_the_learning_rate() -> None:
    (note,) = notes(parse_config({"learning_rate": 1e-3}), model=SDXL)
    assert "10 times the usual value for AdamW" in note
    assert notes(parse_config({"purpose": "character"}), model=SDXL) == ()  # a trigger word is not known yet
    assert notes(parse_config({"purpose": "character"}), DatasetFacts(40, (40,), trigger_word="aki")) == ()
