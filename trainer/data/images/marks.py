"""Marks of other programs in captions: placeholders, choices, weights and the like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..findings import Finding

SHOWN = 3
"""The number of marks that a finding quotes."""

TRIGGER = re.compile(r"\[trigger\]|\{trigger\}|\[name\]", re.IGNORECASE)
"""The placeholders for the trigger word in other trainers' captions."""


@dataclass(frozen=True)
class Mark:
    """A kind of mark.

    Attributes:
        pattern: what it looks like.
        what: what it is, as a phrase.
        remedy: what to write instead.
    """

    pattern: re.Pattern[str]
    what: str
    remedy: str


MARKS = (
    Mark(
        re.compile(r"[\[{](?:trigger|name|filewords)[\]}]", re.IGNORECASE),
        "placeholders",
        "Write what they stand for, or set a trigger word, which replaces [trigger] and [name].",
    ),
    Mark(
        re.compile(r"\{[^{}|]*\|[^{}]*\}"),
        "choices between words",
        "Write one caption per choice on lines of their own, and switch on one caption a line.",
    ),
    Mark(re.compile(r"(?<!\w)__[\w/-]+?__(?!\w)"), "names of wildcard files", "Write the words themselves."),
    Mark(
        re.compile(r"<(?:lora|lyco|hypernet|embedding)[^<>]*>|\bembedding:\S+", re.IGNORECASE),
        "LoRAs or embeddings to load",
        "Remove them.",
    ),
    Mark(
        re.compile(r"(?<![^\s,])(?:BREAK|ADDCOMM|ADDBASE|ADDCOL|ADDROW)(?![^\s,])"),
        "commands",
        "Remove them.",
    ),
    Mark(
        re.compile(
            r"(?<!\\)\([^()]+:\s*\d*\.?\d+\s*\)"  # (word:1.2)
            r"|(?<![\\:])\(\([^()]{2,}\)\)"  # ((word))
            r"|\[[^\[\]]*:[^\[\]]*:?\s*\d*\.\d+\s*\]"  # [from:to:0.5]
        ),
        "weights",
        "Remove them; every word of a caption counts the same.",
    ),
    Mark(re.compile(r"\|\|\|"), "separators", "Separate tags with commas; keep_tokens says how many stay in front."),
)


def with_trigger_in_place(caption: str, trigger_word: str) -> str:
    """Return a caption in which the trigger word takes the place of other trainers' placeholders for it."""
    return TRIGGER.sub(lambda _: trigger_word, caption) if trigger_word else caption


def findings_of_marks(captions: Sequence[tuple[str, str]]) -> list[Finding]:
    """Return a finding for each kind of mark in captions.

    Args:
        captions: the name and a caption of each image.
    """
    findings = []
    for mark in MARKS:
        found = {name: match[0] for name, caption in captions if (match := mark.pattern.search(caption))}
        if found:
            examples = ", ".join(list(dict.fromkeys(found.values()))[:SHOWN])
            findings.append(
                Finding(
                    "marks",
                    "warning",
                    f"Captions contain {mark.what} of other programs: {examples}",
                    "Captions are trained as they are written, so the marks would be learned too.",
                    mark.remedy,
                    tuple(found),
                )
            )
    return findings
