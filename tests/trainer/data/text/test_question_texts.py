"""Texts that are written as questions and answers are told apart from others."""

from __future__ import annotations

import pytest
from lora_crucible.data.text.question_texts import as_turns, read_questions
from lora_crucible.data.text.rows import Row, Turn

ASKED = (Turn("user", "How are you?"), Turn("assistant", "Fine: thanks."))


@pytest.mark.parametrize(
    "text",
    [
        "Q: How are you?\nA: Fine: thanks.",
        "Q: How are you? A: Fine: thanks.",
        "question: How are you?\n\nanswer: Fine: thanks.",
        "User: How are you?\nAssistant: Fine: thanks.",
        "### Human: How are you? ### Assistant: Fine: thanks.",
        "### Instruction:\nHow are you?\n\n### Response:\nFine: thanks.\n",
        "**Q:** How are you?\n**A:** Fine: thanks.",
    ],
)
def test_marks(text: str) -> None:
    found = as_turns(text)
    assert found is not None
    assert found[0] == ASKED


def test_chinese_marks_and_several_rounds() -> None:
    assert as_turns("问：你好吗？答：很好。") == (
        (Turn("user", "你好吗？"), Turn("assistant", "很好。")),
        "问: … 答: …",
    )
    found = as_turns("Q: a\nA: b\nQ: c\nA: d\ne")
    assert found is not None
    assert [turn.text for turn in found[0]] == ["a", "b", "c", "d\ne"]


@pytest.mark.parametrize(
    "text", ["", "Q: a", "A: b", "A tale: once", "Quite: a\nA: b", "Q: a\nQ: b", "Q:\nA: b", "Users: a\nAssistants: b"]
)
def test_other_texts(text: str) -> None:
    assert as_turns(text) is None


def test_all_texts_or_none() -> None:
    rows = [Row(f"a.txt, line {number}", "text", (), f"Q: a{number}\nA: b") for number in range(9)]
    read, marks, odd = read_questions(rows)
    assert [row.turns[0].text for row in read] == [f"a{number}" for number in range(9)]
    assert (marks, odd) == (("Q: … A: …",), ())
    other = Row("a.txt, line 10", "text", (), "a tale")
    assert read_questions([*rows, other]) == ((*rows, other), (), ("a.txt, line 10",))
    assert read_questions([rows[0], other]) == ((rows[0], other), (), ())
