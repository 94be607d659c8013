"""A cleaned copy is mended, says what was changed, and never replaces a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lora_crucible.data.text.cleaning import write_cleaned
from lora_crucible.data.text.read import read_rows
from lora_crucible.errors import CrucibleError


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


GOOD = {"messages": [message("user", "a"), message("assistant", "b")]}
LINES = [
    json.dumps(GOOD),
    json.dumps({"prompt": "A", "answer": "b "}),
    '{"prompt": ',
    json.dumps({"prompt": "c", "answer": ""}),
    json.dumps(
        {
            "messages": [
                message("assistant", "x"),
                *[message("user", one) for one in "de"],
                message("bot", "f"),
                message("user", "g"),
            ]
        }
    ),
    json.dumps({"messages": [message("assistant", "x")]}),
    json.dumps({"prompt": "c", "answer": 7}),
    json.dumps({"text": "a tale"}),
]


def test_a_cleaned_copy(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text("\n".join(LINES))
    before = source.read_bytes()
    target = tmp_path / "clean.jsonl"
    said = write_cleaned(source, {}, target)
    assert source.read_bytes() == before
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert rows == [
        GOOD,
        {"text": "a tale"},
        {"messages": [message("user", "d\n\ne"), message("assistant", "f")]},
    ]
    for text in ("line 3", "line 7", "line 4", "line 6", "line 5", "line 2", "3 rows were written"):
        assert text in said
    read = read_rows(target, {})
    assert (len(read.rows), read.problems) == (3, ())
    again = write_cleaned(target, {}, tmp_path / "again.jsonl")
    assert "Nothing had to be changed" in again
    assert (tmp_path / "again.jsonl").read_bytes() == target.read_bytes()


def test_nothing_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    source = folder / "a.jsonl"
    source.write_text(json.dumps(GOOD))
    with pytest.raises(CrucibleError, match="never replaces"):
        write_cleaned(source, {}, source)
    with pytest.raises(CrucibleError, match=r"is a folder.*Name a file in it, such as .*clean\.jsonl"):
        write_cleaned(source, {}, tmp_path)
    with pytest.raises(CrucibleError, match="trained twice"):
        write_cleaned(folder, {}, folder / "clean.jsonl")
    source.write_text('{"prompt": "a", "answer": ""}')
    with pytest.raises(CrucibleError, match=r"No row .* remains"):
        write_cleaned(source, {}, tmp_path / "clean.jsonl")
    assert not (tmp_path / "clean.jsonl").exists()
