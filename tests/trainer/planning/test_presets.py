"""Each purpose chooses values that are known to work, on every model and for every number of images."""

from __future__ import annotations

import itertools

import pytest
from lora_crucible.config import DatasetFacts, ModelFacts, ResolvedConfig, parse_config
from lora_crucible.config.output_settings import Purpose
from lora_crucible.planning.resolve import resolve

MODELS = {
    "sd15": ModelFacts("sd15", 512, 7.0, "epsilon"),
    "sd2_v": ModelFacts("sd2_v", 768, 7.0, "v_prediction"),
    "sdxl": ModelFacts("sdxl", 1024, 6.0, "epsilon"),
    "flux1": ModelFacts("flux1", 1024, 1.0, "flow"),
    "unknown": ModelFacts("unknown", 1024, 4.0, "flow"),
}
PURPOSES: tuple[Purpose, ...] = ("character", "style", "object", "concept")
IMAGES = (1, 3, 14, 15, 29, 30, 49, 50, 99, 100, 299, 300, 1000)

every_case = pytest.mark.parametrize(
    ("purpose", "model", "images"), list(itertools.product((*PURPOSES, "quick_test"), MODELS, IMAGES))
)


def chosen(purpose: str, model: str = "sdxl", images: int = 30, **values: object) -> ResolvedConfig:
    facts = DatasetFacts(examples=images, bucket_sizes=(images,))
    return resolve(parse_config({"purpose": purpose, **values}), facts, MODELS[model]).values


@every_case
def test_values_stay_in_the_ranges_that_are_known_to_work(purpose: str, model: str, images: int) -> None:
    values = chosen(purpose, model, images)
    assert 1 <= values.lora_rank <= (8 if images < 15 and purpose != "style" else 32)
    assert values.lora_rank / 2 <= values.lora_alpha <= values.lora_rank
    assert values.resolution >= 384
    step = values.batch_size * values.gradient_accumulation_steps
    assert 4 <= step <= 8 or (values.batch_size == images and step >= 4)
    assert 0 <= values.lr_warmup_steps <= min(100, values.max_train_steps * 0.1)
    assert 5e-5 <= values.learning_rate <= 4e-4
    assert 0 <= values.caption_dropout_rate <= 0.1
    if model in ("flux1", "unknown"):
        assert values.loss_weighting == "none"
    if images < 30:
        assert values.validation_percent == 0
    assert values.validation_percent * images / 100 <= 16.5
    assert not values.train_text_encoder


@pytest.mark.parametrize(("purpose", "images"), list(itertools.product(PURPOSES, IMAGES)))
def test_a_run_is_long_enough_and_not_longer_than_pays(purpose: str, images: int) -> None:
    values = chosen(purpose, images=images)
    assert 500 <= values.max_train_steps <= 2000
    times_shown = values.max_train_steps * values.batch_size * values.gradient_accumulation_steps / images
    if values.max_train_steps > 500:
        assert times_shown <= 15.5 if images < 50 else times_shown <= 12.5
    if images > 100:
        assert times_shown <= 25


@pytest.mark.parametrize(
    ("purpose", "ranks", "loss_weighting", "caption_dropout"),
    [
        ("character", {1: 8, 99: 8, 100: 16, 1000: 16}, "none", 0.0),
        ("style", {1: 12, 29: 12, 30: 16, 299: 16, 300: 32}, "min_snr", 0.1),
        ("object", {1: 4, 14: 4, 15: 8, 99: 8, 100: 16}, "none", 0.0),
        ("concept", {1: 8, 99: 8, 100: 16, 299: 16, 300: 32}, "min_snr", 0.0),
        ("quick_test", {1: 8, 1000: 8}, "none", 0.0),
    ],
)
def test_purposes_are_what_the_help_page_says(
    purpose: str, ranks: dict[int, int], loss_weighting: str, caption_dropout: float
) -> None:
    assert {images: chosen(purpose, images=images).lora_rank for images in ranks} == ranks
    values = chosen(purpose)
    assert (values.loss_weighting, values.caption_dropout_rate) == (loss_weighting, caption_dropout)
    assert values.target_modules == "attention_and_feed_forward"


def test_from_30_images_on_a_tenth_and_at_most_16_are_kept_for_validation() -> None:
    percents = {images: chosen("style", images=images).validation_percent for images in (29, 30, 160, 1000)}
    assert percents == {29: 0, 30: 10, 160: 10, 1000: 1.6}


def test_more_images_never_mean_less_rank() -> None:
    for purpose in PURPOSES:
        ranks = [chosen(purpose, images=images).lora_rank for images in IMAGES]
        assert ranks == sorted(ranks)
        assert ranks[0] < ranks[-1]


def test_what_is_simpler_gets_less_rank() -> None:
    for images in (10, 50):
        ranks = [chosen(purpose, images=images).lora_rank for purpose in ("object", "character", "style")]
        assert ranks == sorted(ranks)
        assert ranks[0] < ranks[2]


def test_alpha_is_gentler_for_few_images_and_follows_the_users_rank() -> None:
    assert chosen("character", images=14, lora_rank=10).lora_alpha == 5
    assert chosen("character", images=15, lora_rank=10).lora_alpha == 10
    assert chosen("character", images=15, lora_rank=10, algorithm="rslora").lora_alpha == 5


def test_small_models_learn_at_twice_the_rate() -> None:
    for purpose in PURPOSES:
        for small in ("sd15", "sd2_v"):
            assert chosen(purpose, small).learning_rate == 2 * chosen(purpose, "sdxl").learning_rate == 2e-4


@pytest.mark.parametrize("model", MODELS)
def test_timesteps_suit_what_the_model_predicts(model: str) -> None:
    flow = MODELS[model].prediction_type == "flow"
    assert chosen("style", model).timestep_sampling == ("logit_normal" if flow else "uniform")


def test_a_quick_test_is_short_and_otherwise_like_a_real_run() -> None:
    test, real = chosen("quick_test", images=200), chosen("concept", images=200)
    assert test.max_train_steps <= 60
    assert test.sample_every_n_steps == test.max_train_steps  # before and after only
    assert test.validation_percent == 0
    assert (test.measure, real.measure) == ("never", "auto")
    assert test.learning_rate == 2 * real.learning_rate
    assert chosen("quick_test", optimizer="prodigy").learning_rate == 1  # it finds the rate itself
    for name in ("batch_size", "gradient_accumulation_steps", "resolution", "target_modules"):
        assert getattr(test, name) == getattr(real, name)
    assert chosen("quick_test", max_train_steps=9).max_train_steps == 9
    assert chosen("quick_test", images=8, epochs=3).max_train_steps == 6


def test_regularization_images_do_not_take_the_place_of_training_images() -> None:
    def steps(regularization: int) -> int:
        facts = DatasetFacts(20, (20 + regularization,), regularization_per_epoch=regularization)
        return resolve(parse_config({}), facts, MODELS["sdxl"]).values.max_train_steps

    assert steps(20) == 2 * steps(0)


def test_auto_takes_the_purpose_that_the_captions_speak_for() -> None:
    facts = DatasetFacts(30, (30,), taken_for=("style", "because of the captions"))
    result = resolve(parse_config({}), facts, MODELS["sdxl"])
    assert result.reasons["purpose"] == "style: because of the captions"
    named = resolve(parse_config({"purpose": "style"}), facts, MODELS["sdxl"])
    assert result.values == named.values


def test_whatever_the_user_says_stays() -> None:
    given = {
        "lora_rank": 3,
        "lora_alpha": 7.0,
        "caption_dropout_rate": 0.0,
        "loss_weighting": "none",
        "validation_percent": 0.0,
        "timestep_sampling": "mode",
        "sample_every_n_steps": 7,
        "measure": "always",
    }
    for purpose in (*PURPOSES, "quick_test"):
        values = chosen(purpose, images=100, **given)
        assert {name: getattr(values, name) for name in given} == given


def test_a_complete_config_is_complete_already() -> None:
    for purpose, model in itertools.product((*PURPOSES, "quick_test"), MODELS):
        values = chosen(purpose, model, images=60)
        again = resolve(
            parse_config(values.model_dump()), DatasetFacts(60, (60,), taken_for=("object", "?")), MODELS["sd15"]
        )
        assert again.values.model_dump() == values.model_dump()
        assert again.reasons == {}
