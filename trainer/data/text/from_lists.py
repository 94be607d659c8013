"""Datasets of texts made from lists of texts in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ...config import TrainingConfig
from ...errors import CrucibleError
from ...messages.wording import counted
from ..findings import Finding
from .dataset import TextDataset
from .files import SourceFile, Sources
from .load import completed
from .raw_rows import RawRow
from .read import rows_of
from .rows import Row
from .text_checks import whole_text

NAME = "from lists"

NOT_IN_FOLDER = (
    "The rows of this dataset come from other nodes and are not in a file. To run from the YAML, save them as one and "
    "set train_data_dir to it."
)

_NODE = "Text Dataset from Lists"


def text_dataset_from_lists(
    config: TrainingConfig, prompts: Sequence[str], answers: Sequence[str], texts: Sequence[str]
) -> TextDataset:
    """Return a dataset whose rows are prompts with their answers, or texts that are trained whole.

    Rows are read and checked like those of a file.

    Args:
        config: the settings; those of files have no meaning here.
        prompts: a prompt for each answer, or one for all of them.
        answers: the answers, in the order of the prompts.
        texts: the texts, without prompts and answers.

    Raises:
        CrucibleError: there is nothing in the lists, they do not belong together, or the regularization rows cannot be
            used. Everything else that is wrong is recorded in the dataset's findings.
    """
    rows = tuple(_raw_rows(list(prompts), list(answers), list(texts)))
    read = rows_of(Sources((SourceFile(NAME, rows),), (), ()), {})
    dataset = TextDataset(
        NAME,
        None,
        config.data.model_copy(update={"train_data_dir": None}),
        config.row_settings,
        read.rows,
        layout=read.layout,
        loading_findings=(*read.findings, *_about_lines(read.rows), *_about_columns(config)),
        not_in_folder=NOT_IN_FOLDER,
    )
    return completed(dataset, config)


def _raw_rows(prompts: list[str], answers: list[str], texts: list[str]) -> Iterator[RawRow]:
    if texts and (prompts or answers):
        raise CrucibleError(
            f"{_NODE} got texts as well as prompts or answers, so it is not clear what is to be trained. Connect "
            "prompts and answers, of which the answers are trained, or texts alone, which are trained whole."
        )
    if not (prompts or answers or texts):
        raise CrucibleError(
            f"{_NODE} got no texts, so there is nothing to train on. Connect lists of texts: prompts and answers, or "
            "texts alone."
        )
    if texts:
        yield from (RawRow(NAME, f"row {number}", {"text": text}) for number, text in enumerate(texts, start=1))
        return
    if not answers:
        raise CrucibleError(
            f"{_NODE} got {counted(len(prompts), 'prompt')} and no answers, so there is nothing that the model could "
            "learn to answer. Connect the answers too, or connect this list to texts to train it whole."
        )
    if not prompts:
        raise CrucibleError(
            f"{_NODE} got {counted(len(answers), 'answer')} and no prompts, so nothing would ask for them. Connect the "
            "prompts too (one for each answer, or a single one for all), or connect this list to texts to train it "
            "whole."
        )
    if len(prompts) not in (1, len(answers)):
        raise CrucibleError(
            f"{_NODE} got {counted(len(prompts), 'prompt')} and {counted(len(answers), 'answer')}, so it is not clear "
            "which answer belongs to which prompt. Connect as many prompts as answers, in the same order, or a single "
            "prompt for all of them. If both come from Auto Caption, give both nodes the same dataset."
        )
    asked = prompts * len(answers) if len(prompts) == 1 else prompts
    for number, (prompt, answer) in enumerate(zip(asked, answers, strict=True), start=1):
        yield RawRow(NAME, f"row {number}", {"prompt": prompt, "answer": answer})


def _about_lines(rows: Sequence[Row]) -> Iterator[Finding]:
    """Yield a finding about a single row whose lines may be meant as rows."""
    lines = [len(whole_text(replace(row, turns=row.turns[-1:])).splitlines()) for row in rows]
    if len(lines) == 1 and lines[0] > 1:
        what = f"The lists have a single text with {lines[0]} lines, which is one row"
        remedy = "If each line is to be a row, save them as a file and use Load Text Dataset."
        yield Finding("one_row", "warning", what, "", remedy)


def _about_columns(config: TrainingConfig) -> Iterator[Finding]:
    if config.text_columns and not config.reg_data_dir:
        what = f"text_columns = {config.text_columns} was not used, because lists have no columns"
        yield Finding("columns_of_lists", "note", what)
