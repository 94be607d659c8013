"""Datasets of texts from lists: rows, checks, and lists that do not belong together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lora_crucible.config import TrainingConfig, parse_config
from lora_crucible.data.text.dataset import TextDataset
from lora_crucible.data.text.from_lists import NOT_IN_FOLDER, text_dataset_from_lists
from lora_crucible.data.text.load import load_text_dataset
from lora_crucible.data.text.report import text_report
from lora_crucible.data.text.rows import Turn
from lora_crucible.errors import CrucibleError

TAGS = [
    f"1girl, {animal}, {place}"
    for animal in ("cat", "owl", "horse", "wolf")
    for place in ["garden", "street", "forest", "hall", "river"]
]
CAPTIONS = [
    f"In the {tags.split(', ')[2]}, a girl stands next to a {tags.split(', ')[1]}, seen from the side." for tags in TAGS
]


def config(**settings: Any) -> TrainingConfig:
    return parse_config({"task_type": "text-generation", **settings})


def made(prompts: list[Any] = [], answers: list[Any] = [], texts: list[Any] = [], **settings: Any) -> TextDataset:  # noqa: B006
    return text_dataset_from_lists(config(**settings), prompts, answers, texts)


def test_prompts_and_answers_are_the_rows_that_a_file_of_them_would_be(tmp_path: Path) -> None:
    rows = [{"prompt": f" {tags}\r\n", "answer": caption} for tags, caption in zip(TAGS, CAPTIONS, strict=True)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = made([row["prompt"] for row in rows], CAPTIONS, validation_percent=20)
    of_file = load_text_dataset(config(train_data_dir=str(path), validation_percent=20))
    assert found.fingerprint == of_file.fingerprint
    assert (len(found.rows), len(found.validation)) == (16, 4)
    assert {row.name for row in found.rows} < {f"from lists, row {number}" for number in range(1, 21)}
    found.require_trainable()
    report = text_report(found)
    assert report.verdict == text_report(of_file).verdict
    assert "20 rows of the layout prompt and answer" in report.text()


def test_what_is_known_of_a_dataset_without_a_file() -> None:
    found = made(TAGS, CAPTIONS)
    assert (found.path, found.source, found.not_in_folder) == (None, "from lists", NOT_IN_FOLDER)
    assert found.unrelated_prompts == ()
    assert found.settle(config(train_data_dir="elsewhere")).train_data_dir == "elsewhere"
    assert load_text_dataset(config(train_data_dir="demo")).unrelated_prompts


def test_one_prompt_for_all_answers() -> None:
    rows = made(["Write a prompt"], CAPTIONS[:3]).rows
    assert [row.turns for row in rows] == [
        (Turn("user", "Write a prompt"), Turn("assistant", caption)) for caption in CAPTIONS[:3]
    ]


def test_texts_are_trained_whole() -> None:
    assert [row.text for row in made(texts=CAPTIONS[:3]).rows] == CAPTIONS[:3]
    asked = made(texts=["Q: one? A: two.", "Q: three? A: four."])
    assert [row.turns[1].text for row in asked.rows] == ["two.", "four."]


@pytest.mark.parametrize(
    ("lists", "parts"),
    [
        ({}, ["got no texts", "Connect lists of texts"]),
        ({"prompts": TAGS}, ["20 prompts and no answers", "Connect the answers too"]),
        ({"answers": TAGS[:1]}, ["1 answer and no prompts", "a single one for all"]),
        ({"prompts": TAGS[:2], "answers": CAPTIONS}, ["2 prompts and 20 answers", "Auto Caption", "same dataset"]),
        ({"prompts": TAGS, "answers": CAPTIONS[:1]}, ["20 prompts and 1 answer"]),
        ({"prompts": TAGS, "texts": CAPTIONS}, ["texts as well as prompts or answers"]),
        ({"answers": TAGS, "texts": CAPTIONS}, ["texts as well as prompts or answers"]),
    ],
)
def test_lists_that_do_not_belong_together(lists: dict[str, list[str]], parts: list[str]) -> None:
    with pytest.raises(CrucibleError) as error:
        made(**lists)
    for part in ("Text Dataset from Lists", *parts):
        assert part in str(error.value)


def test_empty_texts_are_left_out_with_a_warning() -> None:
    found = made(TAGS, [*CAPTIONS[:18], "", "  \n"])
    (finding,) = found.findings
    assert (finding.kind, finding.severity) == ("empty_rows", "warning")
    assert finding.images == ("from lists, row 19", "from lists, row 20")
    assert len(found.rows) == 18


def test_what_is_no_text_stops_the_training() -> None:
    found = made([*TAGS[:19], None], [*CAPTIONS[:18], 7, CAPTIONS[19]])
    with pytest.raises(CrucibleError) as error:
        found.require_trainable()
    assert "from lists, row 19 has a number under answer (7)" in str(error.value)
    assert "--clean" not in str(error.value)
    assert "1 row has an empty prompt (from lists, row 20)" in text_report(found).text()


def test_duplicates_are_told_without_a_command_for_files() -> None:
    text = text_report(made([*TAGS, TAGS[0]], [*CAPTIONS, CAPTIONS[0]])).text()
    assert "1 row repeats another one word for word (from lists, row 21)" in text
    assert "--clean" not in text


def test_a_field_with_a_row_in_each_line_is_told() -> None:
    text = text_report(made(["a\nb\nc"], ["one\ntwo\nthree"])).text()
    assert "a single text with 3 lines, which is one row" in text
    assert "use Load Text Dataset" in text


def test_settings_of_files_and_regularization_rows(tmp_path: Path) -> None:
    path = tmp_path / "others.jsonl"
    path.write_text(json.dumps({"prompt": "What is two plus two?", "answer": "Four."}) + "\n")
    found = made(TAGS, CAPTIONS, reg_data_dir=str(path))
    assert [row.name for row in found.regularization] == ["others.jsonl: others.jsonl, row 1"]
    assert found.findings == ()
    (finding,) = made(TAGS, CAPTIONS, text_columns="prompt=q, answer=a").findings
    assert finding.severity == "note"
    assert finding.what == "text_columns = prompt=q, answer=a was not used, because lists have no columns"
