"""Rows of tables are read although a quotation mark is missing, and messages name the right line."""

from __future__ import annotations

from pathlib import Path

import pytest
from lora_crucible.data.csv_form import LONGEST_FIELD
from lora_crucible.data.images.table_rows import Row, csv_rows, json_rows
from lora_crucible.errors import CrucibleError


def rows(text: str, *stems: str) -> list[Row]:
    return list(csv_rows(text, Path("metadata.csv"), stems.__contains__))


def captions(text: str, *stems: str) -> dict[str, str]:
    return {row.name: " ".join(row.captions[0].split()) for row in rows(text, *stems) if not row.problem}


EXPECTED = {"1.png": "open sign", "2.png": "a cow, brown", "3.png": "a pig"}


@pytest.mark.parametrize(
    "text",
    [
        'file_name,text\n1.png,"open sign\n2.png,"a cow, brown"\n3.png,a pig\n',
        '1.png,"open sign\n2.png,a cow, brown\n3.png,a pig',
        'file_name\ttext\n1.png\t"open sign\n2.png\ta cow, brown\n3.png\ta pig\n',
        'text,file_name\n"open sign,1.png\n"a cow, brown",2.png\na pig,3.png\n',
        'file_name,text\n"1.png","open sign\n"2.png","a cow, brown"\n"3.png","a pig"\n',
        'file_name,text,width\n1.png,"open sign\n2.png,"a cow, brown",8\n3.png,a pig,8\n',
    ],
    ids=["quoted below", "no header", "tabs", "text first", "all quoted", "more columns"],
)
def test_an_open_quotation_mark_takes_in_no_rows(text: str) -> None:
    assert captions(text) == EXPECTED
    (mended,) = [row for row in rows(text) if row.mended and "quotation" in row.mended]
    assert mended.place == f"line {text[: text.index('open')].count(chr(10)) + 1}"


def test_names_with_spaces_or_without_ending_are_recognized() -> None:
    text = 'my photo 1.png,"open\nmy photo 2.png,a cow\n'
    assert captions(text) == {"my photo 1.png": "open", "my photo 2.png": "a cow"}
    assert captions('1,"open\n2,a cow\n', "1", "2") == {"1": "open", "2": "a cow"}


def test_a_caption_may_have_several_lines() -> None:
    text = 'file_name,text\n1.png,"a cat,\nbrown, on\n\na mat"\n2.png\n'
    (caption, problem) = rows(text)
    assert (caption.place, " ".join(caption.captions[0].split())) == ("line 2", "a cat, brown, on a mat")
    assert (problem.place, problem.problem) == ("line 6", "2.png has no caption")


def test_an_open_quotation_mark_after_blank_lines_is_named_by_its_line() -> None:
    found = rows('\n\nfile_name,text\n1.png,"open\nsign\n\n2.png,a cow\n3.png\n')
    assert [(row.place, bool(row.mended), bool(row.problem)) for row in found] == [
        ("line 4", True, False),
        ("line 7", False, False),
        ("line 8", False, True),
    ]
    assert found[0].captions[0].split() == ["open", "sign"]


def test_a_field_beyond_all_measure_costs_only_its_row() -> None:
    text = '1.png,"open\n' + "word\n" * (LONGEST_FIELD // 4) + "2.png,a cow\n"
    assert captions(text)["2.png"] == "a cow"


def test_commas_in_a_caption_before_the_last_column() -> None:
    first, second = rows("file_name,text,width\n1.png,a cat, sitting, alone,80\n2.png,a cow,80,\n")
    assert (first.captions, first.place) == (("a cat, sitting, alone",), "line 2")
    assert "5 cells for 3 columns" in first.mended
    assert (second.captions, second.mended) == (("a cow",), "")


def test_a_header_without_captions_says_what_helps() -> None:
    with pytest.raises(CrucibleError, match=r"file_name, label.*set caption_source to sidecar"):
        rows("file_name,label\n1.png,4\n")


@pytest.mark.parametrize(
    "text",
    [
        '{"file_name": "1.png", "text": "a cat"}',
        '[\n {"file_name": "1.png", "text": "a cat"}\n]',
        '{"1.png": {"caption": "a cat"}}',
        '{"1.png": "a cat"}',
    ],
    ids=["lines", "array", "kohya", "by name"],
)
def test_forms_of_json(text: str) -> None:
    (row,) = json_rows(text)
    assert (row.name, row.captions) == ("1.png", ("a cat",))


def test_lines_that_are_no_json_are_named() -> None:
    found = list(json_rows('{"file_name": "1.png", "text": "a"}\n\n{"file_name": 2}\noops\n'))
    assert [(row.place, bool(row.problem)) for row in found] == [("line 1", False), ("line 3", True), ("line 4", True)]
