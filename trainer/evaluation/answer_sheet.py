"""The page that shows answers before and after the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Compared:
    """A prompt with its answers.

    Attributes:
        prompt: the prompt as text.
        before, after: the answers of the base model alone and with the LoRA.
        expected: the answer that the row gives, or "".
        name: the name of the row, or "".
    """

    prompt: str
    before: str
    after: str
    expected: str = ""
    name: str = ""


def answer_sheet(sections: Mapping[str, Sequence[Compared]]) -> str:
    """Return a page in Markdown with all answers side by side.

    Args:
        sections: the answers by the title of their section; empty sections are left out.
    """
    lines = ["# Answers before and after the training"]
    for title, compared in sections.items():
        if not compared:
            continue
        lines += ["", f"## {title}"]
        for number, one in enumerate(compared, start=1):
            lines += ["", f"### {one.name or number}", *_block("prompt", one.prompt)]
            if one.expected:
                lines += _block("the row's answer", one.expected)
            if one.before == one.after:
                lines += _block("before and after alike", one.before)
            else:
                lines += [*_block("before", one.before), *_block("after", one.after)]
    return "\n".join(lines) + "\n"


def _block(label: str, text: str) -> list[str]:
    """Return a labelled text as an indented block, which shows every character as it is."""
    return ["", f"{label}:", "", *(f"    {line}" for line in text.split("\n"))]
