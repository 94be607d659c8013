"""All checks of a dataset of texts, with or without the tokens that a model reads."""

from __future__ import annotations

from collections.abc import Iterator

from ...messages.wording import counted
from ..findings import Finding
from .dataset import TextDataset
from .text_checks import check_texts

FEW_ROWS = 20
"""Fewer rows than this are learned by heart rather than generalized from."""


def check_dataset(dataset: TextDataset) -> Iterator[Finding]:
    """Yield what the user should know about a dataset, beyond the findings that it has itself."""
    rows = (*dataset.rows, *dataset.validation)
    if 0 < len(rows) < FEW_ROWS:
        what = f"There {'is' if len(rows) == 1 else 'are'} {counted(len(rows), 'row')}"
        why = "From so few, a model mostly learns the rows themselves."
        yield Finding("few_rows", "warning", what, why, "Write 50 or more, as different as the prompts will be.")
    yield from check_texts(rows, in_files=dataset.path is not None)
    yield from _special_tokens(dataset)


def _special_tokens(dataset: TextDataset) -> Iterator[Finding]:
    """Yield a finding about answers that contain the stop token, where the model would learn to stop halfway."""
    if dataset.renderer is None:
        return
    stop = dataset.renderer.stop_token
    names = []
    for row in (*dataset.rows, *dataset.validation):
        if not row.turns or row not in dataset.fitted:
            continue
        answers = sum(turn.role == "assistant" for turn in row.turns)
        for part in dataset.fitted[row].parts:
            stops = sum(
                token == stop and is_trained for token, is_trained in zip(part.tokens, part.trained, strict=True)
            )
            if stops > answers and row.name not in names:
                names.append(row.name)
    if names and not _trains_prompts(dataset):
        text = dataset.renderer.decode([stop])
        what = f"{counted(len(names), 'row has', 'rows have')} the stop token ({text}) inside an answer"
        why = "The model would learn to stop there."
        yield Finding("stop_inside", "warning", what, why, "Delete it from the answers.", tuple(names))


def _trains_prompts(dataset: TextDataset) -> bool:
    return any(all(part.trained[1:]) for row in dataset.rows[:1] if row.turns for part in dataset.fitted[row].parts)
