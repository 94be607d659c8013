"""The report on a dataset of texts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ...messages.wording import counted
from ..findings import Finding, by_weight, finding_lines, verdict_of
from .checks import check_dataset
from .dataset import TextDataset
from .kinds import TITLES
from .rendering import Rendered, Renderer
from .rows import Row
from .text_checks import scripts, trained_text

BEGIN, END = "\u27e6", "\u27e7"
"""The marks around what is trained."""

BARS, BAR_WIDTH = 8, 30
"""The most lines of the histogram, and its width in characters."""

LONGEST_SHOWN = 1200
"""The most characters of a rendered row that are shown; the middle of a longer one is left out."""


@dataclass(frozen=True)
class TextReport:
    """What there is to know about a dataset of texts before training.

    Attributes:
        name: the name of the dataset.
        path: its file or folder, or "".
        rows: the number of training rows.
        validation: the number of rows held out.
        regularization: the number of regularization rows.
        layout: sentences about the kinds of rows and how they were read.
        scripts: the number of rows in each script.
        template: the chat template, or "" without a model.
        lengths: the tokens of each part of a row that is trained, or the words of each row without a model.
        trained: the number of tokens in an epoch that are trained; 0 without a model.
        shown: the name of a row and its text with the trained parts marked, for each kind of row.
        findings: all findings, most severe first.
        verdict: a sentence that says whether the dataset is ready.
    """

    name: str
    path: str
    rows: int
    validation: int
    regularization: int
    layout: tuple[str, ...]
    scripts: dict[str, int]
    template: str
    lengths: tuple[int, ...]
    trained: int
    shown: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    verdict: str

    def text(self) -> str:
        """Return the report as one page of plain text."""
        lines = [self.verdict, "", f"Dataset {self.name}: {counted(self.rows, 'row')}"]
        if self.path:
            lines.append(f"Read from: {self.path}")
        lines += [f"{one}." for one in self.layout]
        if len(self.scripts) > 1:
            lines.append("Scripts: " + ", ".join(f"{name} {count}" for name, count in self.scripts.items()))
        if self.validation:
            lines.append(f"Validation: {counted(self.validation, 'row')} held out")
        if self.regularization:
            lines.append(f"Regularization: {counted(self.regularization, 'row')}")
        if self.template:
            lines.append(f"Written with {self.template}; {counted(self.trained, 'token')} per epoch are trained")
        if self.lengths:
            lines += ["", *histogram(self.lengths, "tokens" if self.template else "words")]
        for name, text in self.shown:
            lines += ["", f"{name} as the model reads it; what is between {BEGIN} and {END} is trained:", text]
        return "\n".join([*lines, *finding_lines(self.findings)])


def text_report(dataset: TextDataset) -> TextReport:
    """Report on a dataset: its tokens if it has been rendered for a model, otherwise its words."""
    renderer = dataset.renderer
    parts = [part for row in dataset.rows if row in dataset.fitted for part in dataset.fitted[row].parts]
    words = [len(f"{row.text} {' '.join(turn.text for turn in row.turns)}".split()) for row in dataset.rows]
    findings = by_weight([*dataset.findings, *check_dataset(dataset)])
    return TextReport(
        name=dataset.name,
        path="" if dataset.path is None else str(dataset.path),
        rows=len(dataset.rows),
        validation=len(dataset.validation),
        regularization=len(dataset.regularization),
        layout=dataset.layout,
        scripts=dict(scripts((*dataset.rows, *dataset.validation)).most_common()),
        template="" if renderer is None else renderer.name,
        lengths=tuple(words if renderer is None else (len(part.tokens) for part in parts)),
        trained=sum(sum(part.trained) for part in parts) * dataset.settings.repeats,
        shown=() if renderer is None else tuple(_shown(dataset, renderer)),
        findings=tuple(findings),
        verdict=verdict_of(findings) if dataset.rows else "NOT READY: no row is left to train.",
    )


def _shown(dataset: TextDataset, renderer: Renderer) -> list[tuple[str, str]]:
    """Return one row of each kind with its trained tokens marked, the first of those of usual length."""
    shown = []
    kinds: dict[str, list[Row]] = {}
    for row in dataset.rows:
        if row in dataset.fitted:
            kinds.setdefault(f"{row.kind}{bool(row.turns)}", []).append(row)
    for rows in kinds.values():
        usual = statistics.median_low(len(trained_text(row)) for row in rows)
        row = next(row for row in rows if len(trained_text(row)) <= usual)
        text = marked(renderer, dataset.fitted[row].parts[0])
        shown.append((f"{row.name} ({TITLES[row.kind]})", text))
    return shown


def marked(renderer: Renderer, rendered: Rendered) -> str:
    """Return the text of tokens with marks around those that are trained."""
    pieces, start = [], 0
    for place in range(1, len(rendered.tokens) + 1):
        if place == len(rendered.tokens) or rendered.trained[place] != rendered.trained[start]:
            text = renderer.decode(rendered.tokens[start:place])
            pieces.append(f"{BEGIN}{text}{END}" if rendered.trained[start] else text)
            start = place
    text = "".join(pieces)
    if len(text) <= LONGEST_SHOWN:
        return text
    half = LONGEST_SHOWN // 2
    return f"{text[:half]} [{len(text) - 2 * half:,} characters] {text[-half:]}"


def histogram(lengths: Sequence[int], unit: str) -> list[str]:
    """Return how many lengths there are in each range, as lines of text."""
    least, most = min(lengths), max(lengths)
    step = max(1, -(-(most - least + 1) // BARS))
    counts = [0] * (-(-(most - least + 1) // step))
    for length in lengths:
        counts[(length - least) // step] += 1
    median, total = statistics.median(lengths), sum(lengths)
    lines = [f"Length: {least:,} to {most:,} {unit} (median {median:,g}), {total:,} in all"]
    ranges = [(least + step * number, min(most, least + step * (number + 1) - 1)) for number in range(len(counts))]
    labels = [f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in ranges]
    width = max(map(len, labels))
    for label, count in zip(labels, counts, strict=True):
        bar = "#" * -(-BAR_WIDTH * count // max(counts))
        lines.append(f"  {label:>{width}}  {bar}{' ' if bar else ''}{count:,}")
    return lines
