"""Automatic values for language models follow the size of the model, the number of rows and their length."""

from __future__ import annotations

from typing import Any

import pytest
from lora_crucible.config import SETTINGS, DatasetFacts, ModelFacts, parse_config
from lora_crucible.planning.advice import notes
from lora_crucible.planning.resolve import Resolved, resolve, usual_learning_rate

SMALL, MIDDLE, LARGE = 0.5, 7.6, 32.0
"""Sizes of models, in billions of parameters."""


def facts(rows: int = 200, longest: int = 300, groups: int = 1, **values: Any) -> DatasetFacts:
    sizes = tuple(rows // groups for _ in range(groups))
    return DatasetFacts(rows, sizes, unit="row", longest=longest, **values)


def model(billions: float = SMALL) -> ModelFacts:
    return ModelFacts("language", parameters=int(billions * 1e9))


def resolved(billions: float = SMALL, dataset: DatasetFacts | None = None, **values: Any) -> Resolved:
    return resolve(parse_config({"task_type": "text-generation", **values}), dataset or facts(), model(billions))


@pytest.mark.parametrize(
    ("billions", "rows", "rank", "dropout", "rate"),
    [
        (0.0, 200, 8, 0.1, 2e-4),  # the size is not known
        (0.135, 200, 8, 0.1, 2e-4),
        (3.0, 5000, 16, 0.1, 2e-4),
        (6.74, 200, 16, 0.05, 2e-4),  # Llama 2 7B
        (7.6, 1000, 32, 0.05, 2e-4),
        (13.02, 200, 16, 0.05, 2e-4),  # Llama 2 13B
        (14.8, 200, 32, 0.01, 1e-4),
        (70.0, 20_000, 64, 0.01, 1e-4),
    ],
)
def test_adapter_and_rate_follow_the_size(billions: float, rows: int, rank: int, dropout: float, rate: float) -> None:
    values = resolved(billions, facts(rows)).values
    assert (values.lora_rank, values.lora_alpha, values.lora_dropout) == (rank, 2 * rank, dropout)
    assert (values.learning_rate, values.target_modules) == (rate, "linear")


@pytest.mark.parametrize("purpose", ["auto", "quick_test"])
@pytest.mark.parametrize("rows", [1, 29, 200, 30_000])
@pytest.mark.parametrize("billions", [SMALL, MIDDLE, LARGE])
def test_all_that_concerns_texts_is_explained_and_nothing_else(billions: float, rows: int, purpose: str) -> None:
    result = resolved(billions, facts(rows), purpose=purpose)
    of_texts = {name for name, setting in SETTINGS.items() if setting.may_be_auto and setting.task != "text-to-image"}
    chosen = of_texts - {
        "purpose",
        "epochs",
        "lr_warmup_ratio",
        "mixed_precision",
        "long_rows",  # by the kind of each row
        "save_steps",  # by the clock
        *(() if purpose == "quick_test" else ("measure",)),
        *(() if result.values.validation_percent else ("validate_every_n_steps",)),
    }
    assert set(result.reasons) == chosen
    assert not any(word in reason for reason in result.reasons.values() for word in ("image", "caption", "noise"))
    assert parse_config(result.values.model_dump()).model_dump() == result.values.model_dump()


def test_what_concerns_images_is_left_alone() -> None:
    values = resolved().values
    assert (values.resolution, values.purpose, values.task_type) == (None, "auto", "text-generation")
    assert (values.caption_dropout_rate, values.loss_weighting, values.sample_cfg) == (0.0, "none", 1.0)


def test_a_plan_for_a_language_model_says_its_task_in_the_config() -> None:
    """In a graph, the connected model says that texts are trained."""
    assert resolve(parse_config({}), facts(), model()).values.task_type == "text-generation"


@pytest.mark.parametrize(("gigabytes", "forced"), [(None, False), (24, False), (1, True), (-1, True)])
def test_queries_and_values_alone_are_trained_where_memory_forces_it(gigabytes: int | None, forced: bool) -> None:
    spare = None if gigabytes is None else gigabytes * 10**9
    small_card = ModelFacts("language", parameters=7 * 10**9, linear_sizes=2_500_000, spare_memory=spare)
    result = resolve(parse_config({}), facts(), small_card)
    assert result.values.layer_patterns == ("q_proj, v_proj" if forced else "")
    assert ("target_modules" in result.reasons) is not forced
    if gigabytes == 1:
        assert result.reasons["layer_patterns"] == (
            "q_proj, v_proj: a LoRA on all linear layers would need 640.0 MB, too much of the 1.0 GB that the model "
            "leaves free"
        )
    asked = resolve(parse_config({"target_modules": "linear"}), facts(), small_card)
    assert (asked.values.layer_patterns, asked.values.target_modules) == ("", "linear")
    by_name = resolve(parse_config({"layer_patterns": "k_proj"}), facts(), small_card)
    assert by_name.values.layer_patterns == "k_proj"
    assert "target_modules" not in by_name.reasons, "the names decide"


@pytest.mark.parametrize(
    ("longest", "given", "batch", "accumulation"),
    [
        (200, {}, 8, 1),
        (400, {}, 4, 2),
        (1000, {}, 2, 4),
        (2000, {}, 1, 8),
        (2000, {"max_seq_length": 256}, 8, 1),
        (0, {}, 1, 8),
        (400, {"batch_size": 2}, 2, 4),
        (400, {"gradient_accumulation_steps": 4}, 2, 4),
        (400, {"batch_size": 2, "gradient_accumulation_steps": 8}, 2, 8),
    ],
)
def test_a_step_averages_eight_rows_and_long_rows_come_in_small_batches(
    longest: int, given: dict[str, Any], batch: int, accumulation: int
) -> None:
    values = resolved(SMALL, facts(longest=longest), **given).values
    assert (values.batch_size, values.gradient_accumulation_steps) == (batch, accumulation)


def test_the_length_is_that_of_the_longest_row() -> None:
    result = resolved(SMALL, facts(longest=317))
    assert result.values.max_seq_length == 317
    assert result.reasons["max_seq_length"] == "317: the longest row has 317 tokens"
    assert resolved(SMALL, facts(longest=3)).values.max_seq_length == 8
    assert resolved(SMALL, facts(), max_seq_length=64).values.max_seq_length == 64


@pytest.mark.parametrize(
    ("rows", "given", "steps"),
    [
        (60, {}, 150),
        (4000, {}, 1500),  # 3 epochs at 8 rows per step
        (50_000, {}, 3000),
        (60, {"purpose": "quick_test"}, 50),
        (4000, {"epochs": 2}, 1000),
        (60, {"max_train_steps": 7}, 7),
    ],
)
def test_length_of_a_run(rows: int, given: dict[str, Any], steps: int) -> None:
    assert resolved(SMALL, facts(rows, longest=100), **given).values.max_train_steps == steps


def test_rank_stabilized_lora_and_algorithms_without_dropout_get_what_suits_them() -> None:
    assert resolved(algorithm="rslora").values.lora_alpha == 4
    for algorithm in ("loha", "lokr"):
        assert resolved(algorithm=algorithm).values.lora_dropout == 0
    assert resolved(lora_dropout=0.2).values.lora_dropout == 0.2


def test_optimizers_scale_the_rate_as_for_images() -> None:
    config = parse_config({"optimizer": "adafactor"})
    assert usual_learning_rate(config, model()) == (
        2e-4,
        "the same as for AdamW, which takes equally large steps, on language models under 7B",
    )


def said(dataset: DatasetFacts, **values: Any) -> str:
    config = resolved(SMALL, dataset, **values).values
    return "\n".join(notes(config, dataset, model()))


def test_usual_settings_need_no_words() -> None:
    for rows in (100, 1000, 20_000):
        assert said(facts(rows)) == ""
    assert said(facts(), lora_rank=16, lora_alpha=16) == ""
    assert said(facts(), lora_rank=16, lora_alpha=32) == ""
    assert said(facts(), lora_rank=64, algorithm="dora") == ""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lora_rank": 256}, "lora_rank = 256: close to full fine-tuning, and overfits small datasets. 8 to 64 is"),
        ({"lora_rank": 8, "lora_alpha": 64}, "the LoRA is scaled by alpha / rank = 8. 1 to 2 is usual."),
        ({"learning_rate": 2e-3}, "10 times the usual value for AdamW on this model"),
        ({"batch_size": 1, "gradient_accumulation_steps": 1}, "training on fewer than 4 rows per step is noisy"),
        ({"max_train_steps": 4000}, "Every row is shown about 160 times"),
    ],
)
def test_unusual_settings_are_commented_in_the_words_of_texts(values: dict[str, Any], expected: str) -> None:
    text = said(facts(longest=100), **values)
    assert expected in text
    assert "image" not in text


def test_small_batches_are_explained_by_length() -> None:
    assert "only rows of about the same length share a batch, and there are 40 lengths" in said(
        facts(40, longest=100, groups=40), batch_size=8
    )
