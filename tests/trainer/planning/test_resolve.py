"""Automatic values suit the dataset and the model, and each has its reason."""

from __future__ import annotations

from typing import Any

import pytest
from lora_crucible.config import (
    SETTINGS,
    DatasetFacts,
    ModelFacts,
    TrainingConfig,
    parse_config,
)
from lora_crucible.config.contradictions import contradictions
from lora_crucible.errors import CrucibleError
from lora_crucible.planning.resolve import Resolved, resolve


def resolved(image_count: int = 30, architecture: str = "sd15", **values: Any) -> Resolved:
    native = {"sd15": 512, "demo": 64}.get(architecture, 1024)
    prediction = "flow" if architecture == "flux1" else "epsilon"
    return resolve(
        TrainingConfig(**values),
        DatasetFacts(image_count, bucket_sizes=(image_count,)),
        ModelFacts(architecture, native, sample_cfg=6.0, prediction_type=prediction),
    )


@pytest.mark.parametrize("purpose", SETTINGS["purpose"].choices)
@pytest.mark.parametrize("architecture", ["demo", "sd15", "sdxl", "flux1"])
@pytest.mark.parametrize("image_count", [1, 3, 15, 29, 99, 3000])
def test_nothing_is_left_open_and_all_is_explained(architecture: str, image_count: int, purpose: str) -> None:
    result = resolved(image_count, architecture, purpose=purpose)
    chosen = {name for name, setting in SETTINGS.items() if setting.may_be_auto} - {
        "epochs",
        "mixed_precision",
        "caption_source",
        "long_rows",  # by the kind of each row
        "max_seq_length",  # only for language models
        "text_encoder_learning_rate",  # only if it is trained
        "lr_warmup_ratio",
        "timestep_shift",  # chosen by the base model
        "loader",  # by what the base model is
        "save_steps",  # by the clock
        *(() if purpose == "quick_test" else ("measure",)),
        *(() if purpose == "auto" else ("purpose",)),
        *(() if result.values.validation_percent else ("validate_every_n_steps",)),  # it has no effect then
    }
    assert set(result.reasons) == chosen
    for name in chosen:
        value = getattr(result.values, name)
        assert value is not None
        assert result.reasons[name].startswith(f"{value:g}: " if isinstance(value, float) else f"{value}: ")
    assert parse_config(result.values.model_dump()).model_dump() == result.values.model_dump()


def test_what_the_user_set_stays_and_needs_no_reason() -> None:
    given = {
        "lora_rank": 4,
        "batch_size": 3,
        "learning_rate": 5e-5,
        "max_train_steps": 10,
        "lr_warmup_steps": 0,
    }
    for architecture in ("demo", "sd15"):
        result = resolved(architecture=architecture, **given)
        assert {name: getattr(result.values, name) for name in given} == given
        assert not set(result.reasons) & set(given)


def test_learning_rate_and_resolution_depend_on_the_model() -> None:
    assert (resolved().values.learning_rate, resolved().values.resolution) == (2e-4, 512)
    large = resolved(architecture="sdxl").values
    assert (large.learning_rate, large.resolution) == (1e-4, 1024)


@pytest.mark.parametrize("algorithm", SETTINGS["algorithm"].choices)
@pytest.mark.parametrize("architecture", ["demo", "sd15", "sdxl", "flux1"])
def test_images_are_trained_without_dropout_unless_it_is_asked_for(architecture: str, algorithm: str) -> None:
    assert resolved(architecture=architecture, algorithm=algorithm).values.lora_dropout == 0.0
    assert resolved(architecture=architecture, lora_dropout=0.2).values.lora_dropout == 0.2


def test_samples_have_the_models_own_guidance() -> None:
    assert resolved().values.sample_cfg == 6.0


@pytest.mark.parametrize(
    ("given", "batch", "accumulation"),
    [
        ({}, 2, 2),
        ({"resolution": 576}, 1, 4),
        ({"resolution": 1024}, 1, 4),
        ({"batch_size": 1}, 1, 4),
        ({"batch_size": 8}, 8, 1),
        ({"gradient_accumulation_steps": 2}, 2, 2),
        ({"gradient_accumulation_steps": 8}, 1, 8),
        ({"batch_size": 1, "gradient_accumulation_steps": 1}, 1, 1),
    ],
)
def test_a_step_averages_at_least_four_images(given: dict[str, int], batch: int, accumulation: int) -> None:
    values = resolved(**given).values
    assert (values.batch_size, values.gradient_accumulation_steps) == (batch, accumulation)


def test_a_batch_is_never_larger_than_the_dataset() -> None:
    values = resolved(1).values
    assert (values.batch_size, values.gradient_accumulation_steps) == (1, 4)
    assert resolved(3, "demo").values.batch_size == 3


@pytest.mark.parametrize(
    ("image_count", "given", "steps"),
    [
        (20, {}, 500),  # 8 epochs would be 40 steps
        (300, {}, 600),  # 8 epochs
        (3000, {}, 2000),  # 8 epochs would be 6000 steps
        (20, {"batch_size": 1, "gradient_accumulation_steps": 1}, 2000),  # as many images shown as at batch 4
        (20, {"epochs": 3}, 15),
        (21, {"epochs": 3}, 18),  # a last step with fewer images
    ],
)
def test_length_of_the_run(image_count: int, given: dict[str, int], steps: int) -> None:
    assert resolved(image_count, **given).values.max_train_steps == steps


@pytest.mark.parametrize(("steps", "warmup"), [(5, 0), (100, 10), (5000, 100)])
def test_warmup_is_a_tenth_of_the_run_at_most_100_steps(steps: int, warmup: int) -> None:
    assert resolved(max_train_steps=steps).values.lr_warmup_steps == warmup


def test_warmup_as_long_as_the_run_is_refused() -> None:
    with pytest.raises(CrucibleError, match=r"lr_warmup_steps = 100, but the run has only 100 steps.*to 10, or"):
        resolved(max_train_steps=100, lr_warmup_steps=100)


def test_a_warmup_for_many_images_is_shortened_for_few_and_that_is_said() -> None:
    result = resolved(20, epochs=8, lr_warmup_steps=100, batch_size=2, gradient_accumulation_steps=1)
    assert result.values.max_train_steps == 80
    assert result.values.lr_warmup_steps == 8
    assert result.reasons["lr_warmup_steps"].startswith("8: 100 were asked for, but the run has only 80 steps")


def test_samples_are_drawn_four_times() -> None:
    assert resolved(max_train_steps=400).values.sample_every_n_steps == 100
    assert resolved(max_train_steps=2).values.sample_every_n_steps == 1


def test_the_text_encoder_learns_at_half_the_rate() -> None:
    result = resolved(20, "sd15", train_text_encoder=True)
    assert result.values.text_encoder_learning_rate == pytest.approx(1e-4)
    assert "half of the model's" in result.reasons["text_encoder_learning_rate"]
    prodigy = resolved(20, "sd15", train_text_encoder=True, optimizer="prodigy").values
    assert prodigy.text_encoder_learning_rate == prodigy.learning_rate == 1  # it takes one rate for all parts


@pytest.mark.parametrize(
    ("optimizer", "rate", "schedule", "betas"),
    [
        ("adamw", 2e-4, "cosine", (0.9, 0.999)),
        ("adamw_8bit", 2e-4, "cosine", (0.9, 0.999)),
        ("adafactor", 2e-4, "cosine", (None, None)),
        ("lion", 4e-5, "cosine", (0.9, 0.99)),
        ("prodigy", 1.0, "cosine", (0.9, 0.999)),
        ("schedule_free_adamw", 4e-4, "constant", (0.9, 0.999)),
    ],
)
def test_each_optimizer_has_values_of_its_own(
    optimizer: str, rate: float, schedule: str, betas: tuple[float | None, float | None]
) -> None:
    for architecture, factor in (("sd15", 1.0), ("sdxl", 0.5), ("demo", 10.0)):
        result = resolved(architecture=architecture, optimizer=optimizer)
        values = result.values
        assert values.learning_rate == pytest.approx(rate if optimizer == "prodigy" else rate * factor)
        assert (values.lr_scheduler, (values.adam_beta1, values.adam_beta2)) == (schedule, betas)
        assert "learning_rate" in result.reasons
        assert contradictions(values, {}) == []


def test_warmup_as_a_share_of_the_steps() -> None:
    values = resolved(max_train_steps=300, lr_warmup_ratio=0.05).values
    assert (values.lr_warmup_steps, values.lr_warmup_ratio) == (15, None)
    assert resolved(max_train_steps=300, lr_warmup_ratio=0).values.lr_warmup_steps == 0
    parse_config(values.model_dump())


def test_validation_is_ten_rounds_and_explained_only_when_there_are_images_for_it() -> None:
    result = resolved(max_train_steps=95, validation_percent=20)
    assert result.values.validate_every_n_steps == 10
    assert result.reasons["validate_every_n_steps"] == "10: 10 times during the run"
    assert resolved(max_train_steps=4, validation_percent=20).values.validate_every_n_steps == 1
    assert "validate_every_n_steps" not in resolved(validation_percent=0).reasons
    assert resolved(validate_every_n_steps=7).values.validate_every_n_steps == 7
