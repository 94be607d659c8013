"""Language models on the command line: their datasets, their base models and what `check` tells about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CrucibleError
from .display import display

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..data.text.dataset import TextDataset
    from ..models.base import BaseModel


def load_texts(config: TrainingConfig) -> TextDataset:
    """Load the rows of a config."""
    from ..data.text.load import load_text_dataset

    return load_text_dataset(config)


def language_model(
    config: TrainingConfig, check_interrupt: Callable[[], None], *, weights: bool, download: bool, split: bool = False
) -> BaseModel:
    """Open the language model of a config, and show how far it is downloaded."""
    import transformers.utils.logging

    from ..data.text.chat_rendering import ChatRenderer
    from ..models.transformers.model import TransformersBaseModel

    # Their messages concern parts that are not used here.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    assert config.base_model is not None

    def progress(done: int, total: int, file: str) -> None:
        check_interrupt()
        display().working("Downloading", done, total, "B", file)

    return TransformersBaseModel(
        config.base_model,
        check_interrupt,
        make_renderer=lambda tokenizer: ChatRenderer(tokenizer, config.chat_template, config.train_on_prompts),
        weights=weights,
        load_in_4bit=config.load_in_4bit,
        split=split,
        max_seq_length=config.max_seq_length,
        download=download,
        progress=progress,
        announce=display().say,
    )


def write_cleaned(config: TrainingConfig, target: Path) -> str:
    """Write a cleaned copy of the rows of a config, and return what was changed.

    Raises:
        CrucibleError: there are no rows of the user's own, or the copy cannot be written.
    """
    from ..data.text.cleaning import write_cleaned
    from ..data.text.columns import read_columns
    from ..data.text.dataset import DEMO

    if config.train_data_dir == DEMO:
        raise CrucibleError(
            f"--clean {target} writes a cleaned copy of your rows, but the rows here are those that come with the "
            "package, which need none. Leave it out, or set train_data_dir to a file or folder of your own.",
            "settings",
        )
    return write_cleaned(Path(str(config.train_data_dir)).expanduser(), read_columns(config.text_columns), target)
