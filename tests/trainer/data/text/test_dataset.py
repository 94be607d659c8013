"""A dataset of texts: loading, holding out, rendering, examples, questions and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lora_crucible.config import TrainingConfig, parse_config
from lora_crucible.data.text.chat_rendering import ChatRenderer
from lora_crucible.data.text.dataset import TextDataset
from lora_crucible.data.text.load import load_text_dataset
from lora_crucible.data.text.report import histogram, text_report
from lora_crucible.data.text.rows import Row, Turn
from lora_crucible.errors import CrucibleError
from tiny_tokenizers import of_family

WORDS = [
    "river",
    "lamp",
    "boots",
    "clock",
    "owl",
    "bridge",
    "violin",
    "kite",
    "anchor",
    "basket",
    "candle",
    "drum",
    "engine",
    "forest",
    "garden",
    "hammer",
]
ROWS = [
    {"prompt": f"Tell of the {one} and the {other}", "answer": f"The {one} met a {other}: {one} {other}, {one}!"}
    for place, one in enumerate(WORDS)
    for other in WORDS[place + 1 : place + 4]
]


def config(path: Path | str, **settings: Any) -> TrainingConfig:
    return parse_config({"train_data_dir": str(path), "task_type": "text-generation", **settings})


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def renderer() -> ChatRenderer:
    return ChatRenderer(of_family("qwen3"))


def test_rows_are_held_out_by_content(file: Path, tmp_path: Path) -> None:
    dataset = load_text_dataset(config(file))
    assert dataset.validation_percent is None
    assert len(dataset.rows) == len(ROWS)
    held = dataset.with_validation(10)
    assert (len(held.rows), len(held.validation)) == (len(ROWS) - 4, 4)
    assert set(held.with_validation(0).rows) == set(dataset.rows)
    other = load_text_dataset(config(write(tmp_path / "b.jsonl", ROWS[::-1]), validation_percent=10))
    assert {row.turns for row in other.validation} == {row.turns for row in held.validation}


def test_rows_that_ask_the_same_are_never_held_out(tmp_path: Path) -> None:
    rows = [{"prompt": "the same", "answer": word} for word in WORDS]
    dataset = load_text_dataset(config(write(tmp_path / "a.jsonl", rows), validation_percent=20))
    assert dataset.validation == ()
    assert "validation" in [finding.kind for finding in dataset.findings]


def test_examples_are_grouped_and_weighted(file: Path, tmp_path: Path, renderer: ChatRenderer) -> None:
    regular = write(tmp_path / "reg.jsonl", [{"prompt": f"What is {n}?", "answer": f"{n}."} for n in range(10)])
    dataset = load_text_dataset(config(file, reg_data_dir=str(regular), prior_loss_weight=0.5, repeats=2))
    dataset = dataset.rendered(renderer, 512).with_validation(10)
    examples = dataset.examples(None)
    own = 2 * len(dataset.rows)
    assert [example.weight for example in examples] == [1.0] * own + [0.5] * own
    assert {example.name for example in examples[own:]} == set(dataset.regularization_names)
    assert all(len(example.rendered.tokens) <= example.group for example in examples)
    facts = dataset.facts(examples, None)
    assert (facts.examples, facts.validation) == (len(dataset.rows), 4)
    assert (facts.samples_per_epoch, facts.regularization_per_epoch) == (2 * own, own)
    held_out, trained = dataset.measured_examples(8, None)
    assert (len(held_out), len(trained)) == (4, 4)
    assert dataset.summary(None).startswith("38 rows of up to ")


def test_own_answers_of_the_base_become_regularization_rows(file: Path, tmp_path: Path, renderer: ChatRenderer) -> None:
    (tmp_path / "reg.txt").write_text("\n".join(f"What is {word}?" for word in WORDS))
    settings = config(file, reg_data_dir=str(tmp_path / "reg.txt"), regularization_rows=True)
    dataset = load_text_dataset(settings).rendered(renderer, 512)
    assert dataset.regularization == ()
    assert dataset.regularization_prompts[1] == (Turn("user", "What is lamp?"),)
    row = Row("answer 1", "messages", (*dataset.regularization_prompts[1], Turn("assistant", "A light.")))
    regular = dataset.with_regularization([row])
    assert regular.regularization_names == ("answer 1",)
    assert regular.examples(None)[-1].name == "answer 1"
    assert regular.fingerprint != dataset.fingerprint


def test_the_fingerprint_depends_on_rows_and_tokens(file: Path, tmp_path: Path, renderer: ChatRenderer) -> None:
    dataset = load_text_dataset(config(file))
    moved = load_text_dataset(config(write(tmp_path / "moved.jsonl", ROWS)))
    assert dataset.fingerprint == moved.fingerprint
    rendered = dataset.rendered(renderer, 512)
    prints = {
        dataset.fingerprint,
        load_text_dataset(config(write(tmp_path / "less.jsonl", ROWS[1:]))).fingerprint,
        rendered.fingerprint,
        dataset.rendered(renderer, 300).fingerprint,
        dataset.rendered(ChatRenderer(of_family("chatml")), 512).fingerprint,
        dataset.rendered(ChatRenderer(of_family("qwen3"), train_on_prompts=True), 512).fingerprint,
    }
    assert len(prints) == 6


def test_the_settings_of_rows_become_part_of_the_config(file: Path) -> None:
    """In ComfyUI, the config of a run does not know how its rows were loaded."""
    given = {"max_seq_length": 64, "long_rows": "split", "regularization_rows": True, "repeats": 2}
    settled = load_text_dataset(config(file, **given)).settle(parse_config({"task_type": "text-generation"}))
    assert {name: getattr(settled, name) for name in given} == given
    assert load_text_dataset(config(file)).settle(config(file, long_rows="split")).long_rows == "split"


def test_faulty_rows_prevent_training_and_are_all_named(tmp_path: Path, renderer: ChatRenderer) -> None:
    path = write(
        tmp_path / "a.jsonl", [*ROWS, {"prompt": "a", "answer": 3}, {"messages": [{"role": "user", "content": "a"}]}]
    )
    with path.open("a") as more:
        more.write('{"prompt": \n')
    dataset = load_text_dataset(config(path)).rendered(renderer, 512)
    with pytest.raises(CrucibleError) as caught:
        dataset.require_trainable()
    count = len(ROWS)
    for text in (
        f"line {count + 1} has a number under answer (3)",
        f"line {count + 2} ends with",
        f"line {count + 3} is not JSON",
    ):
        assert text in str(caught.value)
    assert "--clean" in str(caught.value)


def test_a_column_that_no_row_has_is_an_error_with_the_nearest_key(tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", [{"frage": f"was {word}", "antwort": f"das {word}"} for word in WORDS])
    (tmp_path / "tale.txt").write_text("a tale")
    assert not load_text_dataset(config(rows, text_columns="prompt=frage, answer=antwort")).findings
    wrong = load_text_dataset(config(rows, text_columns="prompt=frge, answer=antwort"))
    with pytest.raises(CrucibleError, match=r"the prompt is under 'frge', but no row has this key.*Write prompt=frage"):
        wrong.require_trainable()
    with pytest.raises(CrucibleError, match=r"no row has this key\. The rows have no keys"):
        load_text_dataset(config(tmp_path / "tale.txt", text_columns="text=body")).require_trainable()


def test_a_dataset_without_rows_is_not_ready(tmp_path: Path, renderer: ChatRenderer) -> None:
    rows = write(tmp_path / "rows.jsonl", [{"prompt": "red " * 40, "answer": "a heart"}] * 2)
    report = text_report(load_text_dataset(config(rows, long_rows="leave_out")).rendered(renderer, 16))
    assert report.verdict == "NOT READY: no row is left to train."
    assert "(rows.jsonl, line 1; rows.jsonl, line 2)" in report.text()


def test_rows_that_the_template_refuses_and_answers_that_do_not_fit_are_named(tmp_path: Path) -> None:
    system = {"messages": [{"role": r, "content": f"{r}!"} for r in ("system", "user", "assistant")]}
    path = write(tmp_path / "a.jsonl", [*ROWS, system, {"prompt": "a", "answer": "long " * 90}])
    dataset = load_text_dataset(config(path)).rendered(ChatRenderer(of_family("gemma")), 200)
    with pytest.raises(
        CrucibleError, match=f"(?s)line {len(ROWS) + 1} .*System role.*line {len(ROWS) + 2} has an answer"
    ):
        dataset.require_trainable()


def test_the_report_of_clean_rows(file: Path, renderer: ChatRenderer) -> None:
    dataset = load_text_dataset(config(file, validation_percent=10))
    before = text_report(dataset)
    assert before.findings == ()
    assert "words" in before.text()
    report = text_report(dataset.rendered(renderer, 512))
    text = report.text()
    assert report.findings == ()
    assert report.verdict == "READY: no problems were found."
    assert "42 rows of the layout prompt and answer" in text
    assert "Written with the tokenizer's chat template" in text
    assert "⟦" in text
    (shown,) = report.shown
    assert shown[1].endswith("!<|im_end|>⟧")
    assert shown[1].count("⟦") == 1
    assert "</think>\n\n⟦The" in shown[1]


def test_the_report_shows_each_kind_and_says_what_is_left_out(tmp_path: Path, renderer: ChatRenderer) -> None:
    (tmp_path / "texts.txt").write_text("\n\n".join(f"Once {word} was." for word in WORDS))
    (tmp_path / "empty.jsonl").write_text('{"prompt": "a", "answer": ""}\n')
    write(tmp_path / "rows.jsonl", [*ROWS, {"prompt": "long " * 100, "answer": "b", "id": 1}])
    report = text_report(load_text_dataset(config(tmp_path, long_rows="leave_out")).rendered(renderer, 200))
    assert [name for name, _ in report.shown] == [
        "rows.jsonl, line 1 (prompt and answer)",
        "texts.txt, line 1 (text)",
    ]
    assert {finding.kind: finding.images for finding in report.findings} == {
        "empty_rows": ("empty.jsonl, row 1",),
        "left_out": ("rows.jsonl, line 43",),
    }
    assert "Keys that are not trained: id" in report.text()
    assert "texts.txt (16 paragraphs, each a row)" in report.text()
    assert "Texts are trained whole, followed by the stop token" in report.text()


def test_questions_in_texts_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": f"Q: {one['prompt']}\nA: {one['answer']}"} for one in ROWS])
    dataset = load_text_dataset(config(path))
    assert all(row.kind == "text" and row.turns for row in dataset.rows)
    assert "Every text reads Q: … A: …, so only what answers is trained" in text_report(dataset).text()


def test_a_stop_token_inside_an_answer_is_named(tmp_path: Path, renderer: ChatRenderer) -> None:
    path = write(tmp_path / "a.jsonl", [*ROWS, {"prompt": "Say more", "answer": "one <|im_end|> two"}])
    report = text_report(load_text_dataset(config(path)).rendered(renderer, 512))
    assert [finding.kind for finding in report.findings] == ["stop_inside"]


def test_files_with_several_layouts_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*ROWS, {"text": "A tale of a whale."}])
    (finding,) = load_text_dataset(config(path)).findings
    assert (finding.kind, finding.images) == ("mixed_kinds", ("a.jsonl, line 43",))


def test_the_demo_and_nothing() -> None:
    dataset = load_text_dataset(config("demo"))
    assert (dataset.source, len(dataset.rows), len(dataset.unrelated_prompts)) == ("demo", 60, 40)
    assert dataset.rows[0].name == "demo, row 1"
    assert [turn.role for turn in dataset.rows[0].turns] == ["user", "assistant"]
    with_prompts = load_text_dataset(config("demo", reg_data_dir="demo", regularization_rows=True))
    assert len(with_prompts.regularization_prompts) == 60
    with pytest.raises(CrucibleError, match="train_data_dir"):
        load_text_dataset(TrainingConfig())
    with pytest.raises(CrucibleError, match="No row is left"):
        TextDataset("a", None, TrainingConfig().data).require_trainable()


def test_histogram() -> None:
    assert histogram([5, 5, 5, 5, 6, 20], "tokens") == [
        "Length: 5 to 20 tokens (median 5), 46 in all",
        "    5 to 6  ############################## 5",
        *(f"{label:>10}  0" for label in ("7 to 8", "9 to 10", "11 to 12", "13 to 14", "15 to 16", "17 to 18")),
        "  19 to 20  ###### 1",
    ]
