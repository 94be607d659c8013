"""Every file of a folder is read or named, in whatever format and encoding its rows are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lora_crucible.data.text.files import read_sources
from lora_crucible.errors import CrucibleError


def places(path: Path) -> list[tuple[str, str]]:
    return [(row.file, row.place) for file in read_sources(path).files for row in file.rows]


ROWS = [{"prompt": f"p{number}", "answer": "a"} for number in range(3)]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.jsonl", "\n".join(json.dumps(row) for row in ROWS) + "\n\n", ["line 1", "line 2", "line 3"]),
        ("a.json", "\n" + "\n".join(json.dumps(row) for row in ROWS), ["line 2", "line 3", "line 4"]),
        ("a.json", json.dumps(ROWS, indent=1), ["row 1", "row 2", "row 3"]),
        ("a.json", json.dumps({"version": 1, "data": ROWS}), ["row 1", "row 2", "row 3"]),
        ("a.json", json.dumps({"messages": [{"role": "user", "content": "a"}]}), ["row 1"]),
        ("a.json", json.dumps([{"role": "user", "content": "a"}]), ["row 1"]),
        ("a.csv", 'prompt,answer\n"a\nb",c\n\nd,e\n', ["line 2", "line 5"]),
        ("a.tsv", "prompt\tanswer\na, b\tc\n", ["line 2"]),
        ("a.csv", "\ufeffprompt;answer\r\na;b\r\n", ["line 2"]),
        ("a.rows", '{"prompt": "a", "answer": "b"}\n', ["row 1"]),
        ("a.txt", "one\ntwo\n\nthree\n\n\n\nfour", ["line 1", "line 4", "line 8"]),
        ("a.txt", "a\nb\nc\nd\ne\n", ["line 1", "line 2", "line 3", "line 4", "line 5"]),
        ("a.txt", "a haiku\nin three\nlines", ["the whole file"]),
        ("a.txt", "Q: a\nA: b\n\nQ: c\nA: d", ["line 1", "line 4"]),
    ],
)
def test_rows_have_their_place(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert places(tmp_path / name) == [(name, place) for place in expected]


def test_many_text_files_are_documents(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("a\n\nb")
    assert places(tmp_path) == [(f"{number}.txt", "the whole file") for number in range(5)]


def test_every_file_is_read_or_named(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "rows.jsonl").write_text(json.dumps(ROWS[0]))
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS[1]))
    (tmp_path / "empty.csv").write_text("prompt,answer\n")
    for name in ("README.md", "data.parquet", "book.pdf", "picture.png", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    sources = read_sources(tmp_path)
    assert [file.name for file in sources.files] == ["test.jsonl", "sub/rows.jsonl"]
    named = {name: finding.kind for finding in sources.findings for name in finding.images}
    assert named == {
        "README.md": "unused_files",
        "picture.png": "unused_files",
        "data.parquet": "unread_files",
        "book.pdf": "unread_files",
        "empty.csv": "empty_files",
        "test.jsonl": "test_files",
    }


def test_old_encodings_are_read_and_named(tmp_path: Path) -> None:
    text = "prompt,answer\n红色的心是什么,白色背景上的一颗红色的心\n"
    (tmp_path / "a.csv").write_bytes(text.encode("gb18030"))
    sources = read_sources(tmp_path / "a.csv")
    assert sources.files[0].rows[0].value == {"prompt": "红色的心是什么", "answer": "白色背景上的一颗红色的心"}
    assert [finding.kind for finding in sources.findings] == ["guessed_encoding"]


@pytest.mark.parametrize(
    ("name", "text", "place", "what"),
    [
        ("a.jsonl", '{"a": 1}\n{"prompt": "x", }\n', "line 2", "is not JSON"),
        ("a.jsonl", '{"prompt": "x"\n{"a": 1}\n', "line 1", 'column 15): {"prompt": "x"'),
        ("a.json", '[\n {"a": 1},\n {"a": }\n]', "line 3", "is not JSON"),
        ("a.jsonl", "12\n{}\n", "line 1", "is 12, not an object"),
        ("a.json", '{"prompt": ["a", "b"], "answer": ["c", "d"]}', "the whole file", "columns one after the other"),
        ("a.csv", "prompt,answer\na,b,c\n", "line 2", "has 3 cells for 2 columns (prompt, answer)"),
        ("a.csv", 'prompt,answer\na,b\n"c,d\ne,f\n', "line 3", "is not CSV"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(
    tmp_path: Path, name: str, text: str, place: str, what: str
) -> None:
    (tmp_path / name).write_text(text)
    (problem,) = read_sources(tmp_path / name).problems
    assert problem.place == place
    assert what in problem.what
    assert problem.remedy


def test_folders_without_rows_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CrucibleError, match="It is empty"):
        read_sources(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(CrucibleError, match=r"a\.parquet.*Save the table as CSV"):
        read_sources(tmp_path)
    with pytest.raises(CrucibleError, match="does not exist"):
        read_sources(tmp_path / "b.jsonl")
    (tmp_path / "c.jsonl").write_text("\n")
    with pytest.raises(CrucibleError, match="has no rows, so"):
        read_sources(tmp_path / "c.jsonl")
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(CrucibleError, match=r"has no rows \(c\.jsonl is empty\), so"):
        read_sources(tmp_path)
