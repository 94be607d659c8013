"""A run is recognized by what it was trained with, also by a later version that has more settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lora_crucible.runs.record import RunRecord


def record(**settings: Any) -> RunRecord:
    return RunRecord("base", "dataset", settings, steps=10)


def test_settings_that_an_older_version_did_not_have_had_their_default() -> None:
    older = record(lora_rank=4)
    assert record(lora_rank=4, task_type="text-to-image", text_columns="", max_seq_length=None).differences(older) == []
    assert record(lora_rank=4, long_rows="split").differences(older) == ["long_rows was auto and is now split"]


def test_every_setting_that_differs_is_named() -> None:
    assert record(lora_rank=8, lora_alpha=8.0).differences(record(lora_rank=4, lora_alpha=8.0)) == [
        "lora_rank was 4 and is now 8"
    ]


def test_language_models_have_no_other_parts() -> None:
    before = record(task_type="text-generation")
    assert replace(before, base="other").differences(before) == ["the base model is different"]
    assert "its VAE" in replace(record(), base="other").differences(record())[0]
