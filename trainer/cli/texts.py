"""Language models on the command line: their datasets, their base models and what `check` tells about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..data.base import Dataset
    from ..models.base import BaseModel


def load_texts(config: TrainingConfig) -> Dataset:
    """Load the rows of a config."""
    from ..data.text.load import load_text_dataset  # type: ignore[import-not-found]

    dataset: Dataset = load_text_dataset(config)
    return dataset


def language_model(
    config: TrainingConfig, check_interrupt: Callable[[], None], *, weights: bool, download: bool
) -> BaseModel:
    """Open the language model of a config, with a progress bar if it is downloaded."""
    import transformers.utils.logging
    from tqdm import tqdm

    from ..data.text.chat_rendering import ChatRenderer  # type: ignore[import-not-found]
    from ..models.transformers.model import TransformersBaseModel  # type: ignore[import-not-found]

    # Their messages concern parts that are not used here.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tqdm(total=1, desc="Downloading", unit="B", unit_scale=True, leave=False, disable=not download) as bar:

        def progress(done: int, total: int, file: str) -> None:
            check_interrupt()
            bar.set_postfix_str(file, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        model: BaseModel = TransformersBaseModel(
            config.base_model,
            check_interrupt,
            make_renderer=lambda tokenizer: ChatRenderer(tokenizer, config.chat_template, config.train_on_prompts),
            weights=weights,
            load_in_4bit=config.load_in_4bit,
            max_seq_length=config.max_seq_length,
            max_new_tokens=config.max_new_tokens,
            download=download,
            progress=progress,
            announce=bar.write,
        )
    return model


def text_report(dataset: Dataset) -> str:
    """Return the report on rows that are rendered as their model reads them."""
    from ..data.text.report import text_report  # type: ignore[import-not-found]

    return str(text_report(dataset).text())


def write_cleaned(config: TrainingConfig, file: Path) -> str:
    """Write a cleaned copy of a config's rows, and return what was changed."""
    from ..data.text.cleaning import write_cleaned  # type: ignore[import-not-found]
    from ..data.text.columns import read_columns  # type: ignore[import-not-found]

    assert config.train_data_dir is not None
    source = Path(config.train_data_dir).expanduser()
    return str(write_cleaned(source, read_columns(config.text_columns), file))
