"""Reading a file or folder as a dataset of texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...config import TrainingConfig
from ...errors import CrucibleError
from ..findings import Finding
from .columns import read_columns
from .dataset import DEMO, TextDataset, split_dataset
from .read import read_rows
from .rows import Row, Turn


def load_text_dataset(config: TrainingConfig) -> TextDataset:
    """Load a file or a folder of rows.

    Args:
        config: the settings; `train_data_dir` is a file, a folder, or `demo` for the rows that come with the package;
            so is `reg_data_dir`, where `demo` stands for prompts to the demo language model.

    Raises:
        CrucibleError: the file or folder cannot be used. Everything else that is wrong is recorded in the dataset's
            findings.
    """
    written = (config.train_data_dir or "").strip()
    if not written:
        raise CrucibleError(
            "No file or folder of rows is set, so there is nothing to train on. Set train_data_dir to a file such as "
            f"rows.jsonl, to a folder of them, or to {DEMO} for the rows that come with the package."
        )
    if written == DEMO:
        rows = _demo_rows()
        layout = (f"{len(rows)} rows that come with the package",)
        return completed(TextDataset(DEMO, None, config.data, config.row_settings, rows, layout=layout), config)
    path = Path(written).expanduser().resolve()
    read = read_rows(path, read_columns(config.text_columns))
    dataset = TextDataset(
        path.name,
        path,
        config.data.model_copy(update={"train_data_dir": str(path)}),
        config.row_settings,
        read.rows,
        layout=read.layout,
        loading_findings=read.findings,
    )
    return completed(dataset, config)


def completed(dataset: TextDataset, config: TrainingConfig) -> TextDataset:
    """Return a dataset with the regularization rows that the settings name, and with rows held out for validation.

    Raises:
        CrucibleError: the regularization rows cannot be used.
    """
    regularization, prompts, findings = _regularization(config)
    return split_dataset(
        replace(
            dataset,
            regularization=regularization,
            regularization_prompts=prompts,
            loading_findings=(*dataset.loading_findings, *findings),
        )
    )


def _demo_rows() -> tuple[Row, ...]:
    from ...demo.text import rows

    return tuple(
        Row(f"{DEMO}, row {number}", "prompt_completion", (Turn("user", one.prompt), Turn("assistant", one.answer)))
        for number, one in enumerate(rows(), start=1)
    )


def _regularization(
    config: TrainingConfig,
) -> tuple[tuple[Row, ...], tuple[tuple[Turn, ...], ...], list[Finding]]:
    """Return the rows of `reg_data_dir`, or their prompts alone if the model is to answer them, and findings."""
    if not config.reg_data_dir:
        return (), (), []
    asks = config.regularization_rows
    try:
        path = _regularization_path(config.reg_data_dir)
        read = read_rows(path, read_columns(config.text_columns) if not asks else {}, may_ask=asks)
    except CrucibleError as error:
        raise CrucibleError(
            f"{error}\nThis is set as reg_data_dir. To train without regularization rows of your own, leave it out."
        ) from error
    findings = [replace(finding, what=f"Regularization: {finding.what}") for finding in read.findings]
    named = [replace(row, name=f"{path.name}: {row.name}") for row in read.rows]
    if not asks:
        return tuple(named), (), findings
    return (), tuple(_asking(row) for row in named), findings


def _regularization_path(reg_data_dir: str) -> Path:
    """Return the path of the regularization rows, of those that come with the package for `demo`."""
    if reg_data_dir.strip() == DEMO:
        from ...demo.text import REGULARIZATION_DIR

        return REGULARIZATION_DIR
    return Path(reg_data_dir).expanduser().resolve()


def _asking(row: Row) -> tuple[Turn, ...]:
    """Return the conversation that the model is asked to go on with."""
    if not row.turns:
        return (Turn("user", row.text),)
    return row.turns[:-1] if row.turns[-1].role == "assistant" else row.turns
