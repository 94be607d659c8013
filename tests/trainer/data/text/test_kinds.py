"""The layout of a row is recognized by its keys, and what does not fit is told with key and value."""

from __future__ import annotations

from typing import Any

import pytest
from lora_crucible.data.text.columns import read_columns
from lora_crucible.data.text.kinds import read_row
from lora_crucible.data.text.raw_rows import RawRow, RowProblem
from lora_crucible.data.text.roles import order_problem
from lora_crucible.data.text.rows import Row, Turn
from lora_crucible.errors import CrucibleError

USER, MODEL = Turn("user", "hi"), Turn("assistant", "yo")


def read(value: Any, columns: str = "") -> Row | RowProblem:
    return read_row(RawRow("a.jsonl", "line 3", value), read_columns(columns))


@pytest.mark.parametrize(
    ("value", "kind", "turns"),
    [
        ({"instruction": "hi", "output": "yo"}, "alpaca", (USER, MODEL)),
        ({"instruction": "hi", "input": None, "output": "yo"}, "alpaca", (USER, MODEL)),
        ({"Instruction": "do", "Input": "it", "Output": "yo"}, "alpaca", (Turn("user", "do\n\nit"), MODEL)),
        ({"instruction": "hi", "context": "", "response": "yo"}, "alpaca", (USER, MODEL)),
        (
            {"system": "s", "history": [["a", "b"]], "instruction": "hi", "output": "yo"},
            "alpaca",
            (Turn("system", "s"), Turn("user", "a"), Turn("assistant", "b"), USER, MODEL),
        ),
        (
            {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}], "system": "s"},
            "sharegpt",
            (Turn("system", "s"), USER, MODEL),
        ),
        ({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}, "messages", 0),
        ([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}], "messages", 0),
        (
            {"messages": '[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]'},
            "messages",
            (USER, MODEL),
        ),
        ({"messages": "[{'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'content': 'yo'}]"}, "messages", 0),
        (
            {
                "messages": [
                    {"role": "human", "content": [{"type": "text", "text": "hi"}]},
                    {"role": "bot", "content": "yo"},
                ]
            },
            "messages",
            (USER, MODEL),
        ),
        ({"prompt": " hi\r\n", "completion": "yo\n"}, "prompt_completion", (USER, MODEL)),
        ({"question": "hi", "answer": "yo", "id": 3}, "prompt_completion", (USER, MODEL)),
        ({"input": "hi", "output": "yo"}, "prompt_completion", (USER, MODEL)),
        ({"prompt": "hi", "response": "yo"}, "prompt_completion", (USER, MODEL)),
        ({"问题": "hi", "答案": "yo"}, "prompt_completion", (USER, MODEL)),
        (
            {"prompt": [{"role": "user", "content": "hi"}], "completion": [{"role": "assistant", "content": "yo"}]},
            "prompt_completion",
            (USER, MODEL),
        ),
    ],
)
def test_conversations(value: Any, kind: str, turns: tuple[Turn, ...] | int) -> None:
    row = read(value)
    assert isinstance(row, Row), row
    assert (row.name, row.kind, row.turns, row.text) == ("a.jsonl, line 3", kind, turns or (USER, MODEL), "")


@pytest.mark.parametrize("value", ["a tale", {"text": "a tale\n"}, {"content": "a tale", "url": "x"}])
def test_texts(value: Any) -> None:
    assert read(value) == Row("a.jsonl, line 3", "text", (), "a tale")


def test_columns_can_be_named() -> None:
    row = read({"frage": "hi", "antwort": "yo", "text": "x"}, "prompt=frage, answer = antwort")
    assert isinstance(row, Row)
    assert row.turns == (USER, MODEL)
    assert read({"body": "a tale", "answer": "x"}, "text=body") == Row("a.jsonl, line 3", "text", (), "a tale")
    problem = read({"frage": "hi"}, "prompt=frage, answer=antwort")
    assert isinstance(problem, RowProblem)
    assert "antwort" in problem.what


@pytest.mark.parametrize(
    ("columns", "message"),
    [("prompt", "names no key"), ("promt=a, answer=b", "Write prompt=a"), ("answer=b", "no prompt")],
)
def test_wrong_columns(columns: str, message: str) -> None:
    with pytest.raises(CrucibleError, match=message):
        read_columns(columns)


@pytest.mark.parametrize(
    ("value", "what", "remedy"),
    [
        ({"prompt": "a", "answer": 42}, "a number under answer (42)", "quotation marks"),
        ({"prompt": ["a"], "answer": "b"}, '["a"] under prompt', "role"),
        ({"text": {"a": 1}}, "an object under text", "quotation marks"),
        ({"prompt": "a", "ouput": "b"}, "no answer, only prompt, ouput", "'ouput' misspelled"),
        ({"answer": "b"}, "no prompt, only answer", "text=answer"),
        ({"foo": "a", "bar": "b"}, "no key that is known, only foo, bar", "text_columns"),
        ({}, "no keys at all", "Rename"),
        ({"prompt": "a", "answer": "b", "response": "c"}, "several keys that may hold the answer", "text_columns"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "chosen and a rejected", "answer=chosen"),
        ({"messages": "hello"}, '"hello" under messages', "role"),
        ({"messages": [{"role": "usr", "content": "a"}]}, "role: 'usr' in message 1", "Write user"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "role: 'robot' in message 1", "Write assistant"),
        ({"prompt": "a", "answer": "so \ud83d"}, "\\ud83d under answer, which is half of a character", "Delete it"),
        ("so \ud83d", "has \\ud83d, which is half of a character, after 'so '", "Delete it"),
        ({"messages": [{"role": "user", "text": "a"}]}, "no content in message 1, only role, text", "under content"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "role tool", "Take the row out"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]},
            "0 under weight in message 2, and all answers",
            "take weight out",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "a part of type image_url",
            "Take it out",
        ),
        (
            {"conversations": [{"from": "human", "value": None}, {"from": "gpt", "value": 3}]},
            "value of message 2 (3)",
            "",
        ),
    ],
)
def test_problems_name_key_value_and_remedy(value: Any, what: str, remedy: str) -> None:
    problem = read(value)
    assert isinstance(problem, RowProblem), problem
    assert problem.name == "a.jsonl, line 3"
    assert what in problem.what
    assert remedy in problem.remedy


SYSTEM = Turn("system", "s")


@pytest.mark.parametrize(
    ("turns", "problem"),
    [
        ((USER, MODEL), ""),
        ((SYSTEM, USER, MODEL, USER, MODEL), ""),
        ((USER,), "no answer to train"),
        ((USER, MODEL, USER), "no answer to train"),
        ((MODEL,), "assistant (message 1) at the beginning"),
        ((SYSTEM, MODEL), "assistant (message 2) after that of the system"),
        ((USER, USER, MODEL), "user (message 2) after that of the user"),
        ((SYSTEM, USER, MODEL, MODEL), "assistant (message 4) after that of the assistant"),
        ((USER, SYSTEM, MODEL), "system (message 2) after that of the user"),
        ((SYSTEM,), "no prompt and no answer"),
    ],
)
def test_roles_alternate_and_end_with_an_answer(turns: tuple[Turn, ...], problem: str) -> None:
    found = order_problem(turns)
    assert problem in found
    assert bool(found) == bool(problem)
