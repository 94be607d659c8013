"""Checks of what the rows of a dataset say, which need no model."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from ...messages.wording import counted
from ..findings import Finding
from .rows import Row
from .similar_texts import plain_words, similar_texts

SCRIPTS = {
    "Latin": re.compile(r"[A-Za-z\u00c0-\u024f]"),
    "Cyrillic": re.compile(r"[\u0400-\u04ff]"),
    "Greek": re.compile(r"[\u0370-\u03ff]"),
    "Arabic": re.compile(r"[\u0600-\u06ff]"),
    "Hebrew": re.compile(r"[\u0590-\u05ff]"),
    "Devanagari": re.compile(r"[\u0900-\u097f]"),
    "Thai": re.compile(r"[\u0e00-\u0e7f]"),
    "Korean": re.compile(r"[\uac00-\ud7af]"),
    "Japanese": re.compile(r"[\u3040-\u30ff]"),
    "Chinese": re.compile(r"[\u4e00-\u9fff]"),
}
"""The letters of each script. Texts with kana are Japanese, also where most of their signs are Chinese."""

SCRIPT_READ = 400
"""The number of characters at the beginning of a text that its script is told by."""

LETTERS_OF_A_SIGN = 3
"""A Chinese or Korean sign says as much as this many letters."""

FEW = 0.1
"""Rows that are at most this share of all stand out; more of them are taken for intended."""

LONG_MEDIAN, SHORT = 30, 3
"""Where answers have a median of at least the first number of words, one of fewer than the second is too short."""

LEAST_REPEATED = 5
"""A prompt of fewer words can be repeated in an answer by chance, or because the answer elaborates on it."""


def check_texts(rows: Sequence[Row], *, in_files: bool = True) -> Iterator[Finding]:
    """Yield what the user should know about what rows say.

    Args:
        rows: the rows.
        in_files: whether they are from files, of which a command writes a clean copy.
    """
    yield from _duplicates(rows, in_files)
    yield from _too_short(rows)
    yield from _other_scripts(rows)
    yield from _repeated_questions(rows)
    yield from _without_prompt(rows)


def whole_text(row: Row) -> str:
    """Return all texts of a row."""
    return "\n".join([row.text, *(turn.text for turn in row.turns)]).strip()


def trained_text(row: Row) -> str:
    """Return the last answer of a conversation, or the text of a row without turns."""
    return row.turns[-1].text if row.turns else row.text


def same_text(row: Row) -> tuple[str, ...]:
    """Return what exact duplicates have in common: their texts but for case and white space."""
    return tuple(" ".join(text.casefold().split()) for text in (row.text, *(turn.text for turn in row.turns)))


def _duplicates(rows: Sequence[Row], in_files: bool) -> Iterator[Finding]:
    firsts: dict[tuple[str, ...], Row] = {}
    copies = []
    for row in rows:
        if firsts.setdefault(same_text(row), row) is not row:
            copies.append(row.name)
    if copies:
        what = f"{counted(len(copies), 'row repeats', 'rows repeat')} another one word for word"
        why = "They are learned by heart before the others."
        remedy = "A copy without them is written by: check CONFIG --clean FILE" if in_files else "Leave them out."
        yield Finding("duplicates", "warning", what, why, remedy, tuple(copies))
    unique = list(firsts.values())
    groups = similar_texts([whole_text(row) for row in unique])
    if groups:
        names = tuple(f"{unique[group[0]].name} and {unique[group[1]].name}" for group in groups)
        count = sum(map(len, groups)) - len(groups)
        what = f"{counted(count, 'row is', 'rows are')} nearly the same as another one"
        why = "Together they weigh more than other rows, and are learned by heart first."
        yield Finding("near_duplicates", "warning", what, why, "Keep the best of each group.", names)


def _too_short(rows: Sequence[Row]) -> Iterator[Finding]:
    lengths = [len(plain_words(trained_text(row))) for row in rows]
    if not lengths:
        return
    least = SHORT if statistics.median(lengths) >= LONG_MEDIAN else 1
    short = tuple(row.name for row, length in zip(rows, lengths, strict=True) if length < least)
    if short:
        what = f"{counted(len(short), 'row has', 'rows have')} next to nothing to learn from"
        what += ", unlike the others" if least > 1 else ": no word in the answer or text"
        why = "The model learns to answer like that, too."
        yield Finding("too_short", "warning", what, why, "Write more, or delete them.", short)


def script_of(text: str) -> str:
    """Return the script that most of a text's beginning is written in, or "" if it has no letters."""
    text = text[:SCRIPT_READ]
    counts = Counter({name: len(letters.findall(text)) for name, letters in SCRIPTS.items()})
    if counts["Japanese"]:
        counts["Japanese"] += counts.pop("Chinese")
    for name in ("Japanese", "Chinese", "Korean"):
        counts[name] *= LETTERS_OF_A_SIGN
    script, count = counts.most_common(1)[0]
    return script if count else ""


def scripts(rows: Sequence[Row]) -> Counter[str]:
    """Return how many rows are written in each script; rows without letters are not counted."""
    return Counter(script for row in rows if (script := script_of(trained_text(row))))


def _other_scripts(rows: Sequence[Row]) -> Iterator[Finding]:
    found = [(row, script_of(trained_text(row))) for row in rows]
    counts = Counter(script for _, script in found if script)
    for script, count in counts.most_common()[1:]:
        if count <= FEW * counts.total():
            names = tuple(row.name for row, one in found if one == script)
            usual = counts.most_common(1)[0][0]
            what = f"{counted(count, 'row answers', 'rows answer')} in {script} script, most others in {usual}"
            why = "The model may change languages where nobody asks it to."
            yield Finding("mixed_languages", "warning", what, why, "Take them out if that is not meant.", names)


def _repeated_questions(rows: Sequence[Row]) -> Iterator[Finding]:
    repeating = []
    asked = [row for row in rows if len(row.turns) > 1]
    for row in asked:
        prompt, answer = plain_words(row.turns[-2].text), plain_words(row.turns[-1].text)
        if prompt and (answer == prompt or (len(prompt) >= LEAST_REPEATED and answer[: len(prompt)] == prompt)):
            repeating.append(row.name)
    if repeating and len(repeating) <= max(1, FEW * len(asked)):
        what = f"{counted(len(repeating), 'answer begins', 'answers begin')} with the whole prompt"
        why = "The model learns to repeat what it is asked."
        yield Finding("repeats_prompt", "warning", what, why, "Delete the prompt from these answers.", tuple(repeating))
    elif repeating and len(repeating) == len(asked):
        what = "Every answer begins with the whole prompt"
        why = "The model learns to repeat the prompt first, which is right only if it is meant."
        yield Finding("repeats_prompt", "note", what, why)


def _without_prompt(rows: Sequence[Row]) -> Iterator[Finding]:
    names = tuple(row.name for row in rows if any(turn.role == "user" and not turn.text.strip() for turn in row.turns))
    if names:
        what = f"{counted(len(names), 'row has', 'rows have')} an empty prompt"
        why = "The answer is learned as one to nothing."
        yield Finding("empty_prompts", "warning", what, why, "Fill it in, or delete the row.", names)
