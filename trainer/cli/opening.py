"""Opening of what a config names: its dataset and its base model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import errors_about
from .comfyui import open_with_comfyui, opened_by_comfyui, refuse_unused_files
from .display import display
from .splitting import asks_for_splitting

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..data.base import Dataset
    from ..models.base import BaseModel


def _load(config: TrainingConfig) -> Dataset:
    """Load the dataset of a config, and show how many of the images that are opened for the first time are read."""
    if config.task_type == "text-generation":
        from .texts import load_texts

        return load_texts(config)
    from ..data.cache import cache_folder
    from ..data.images.load import load_dataset
    from ..distributed.processes import current

    facts = cache_folder(Path(config.output_dir).expanduser()) / "facts"

    def checked(done: int, total: int) -> None:
        display().working("Checking", done, total, "image")

    return current().first_per_machine(lambda: load_dataset(config.data, facts_folder=facts, progress=checked))


def open_base_model(
    config: TrainingConfig, check_interrupt: Callable[[], None], *, weights: bool = True, download: bool = False
) -> BaseModel:
    """Open the base model of a config, silencing the packages that read it.

    Args:
        check_interrupt: a function called before each batch; it may raise to stop.
        weights: whether the model will be trained. Without, it can only tell what it could be trained with.
        download: whether the model may be downloaded.

    Raises:
        CrucibleError: there is no such model, or it cannot be trained.
    """
    with errors_about("model"):
        return _opened(config, check_interrupt, weights=weights, download=download)


def _opened(config: TrainingConfig, check_interrupt: Callable[[], None], *, weights: bool, download: bool) -> BaseModel:
    from ..distributed.processes import current

    split = weights and asks_for_splitting()
    if config.task_type == "text-generation":
        from .texts import language_model

        opened = partial(language_model, config, check_interrupt, weights=weights, download=download, split=split)
        return current().first_per_machine(opened) if download else opened()
    refuse_unused_files(config)
    if opened_by_comfyui(config):
        if split:
            from ..models.split_refusals import refuse_split_comfyui

            refuse_split_comfyui(str(config.base_model))
        if download:
            display().say("--download has no effect: ComfyUI opens the base model from files, and downloads none.")
        return open_with_comfyui(config, check_interrupt)
    _silence_diffusers()
    from ..models.diffusers.model import DiffusersBaseModel

    assert config.base_model is not None

    def progress(done: int, total: int, file: str) -> None:
        check_interrupt()
        display().working("Downloading", done, total, "B", file)

    made = partial(
        DiffusersBaseModel,
        config.base_model,
        check_interrupt,
        weights=weights,
        download=download,
        progress=progress,
        announce=display().say,
        split=split,
    )
    return current().first_per_machine(made) if download else made()


def base_model_remarks(config: TrainingConfig) -> list[str]:
    """Return what to do about the base model of a config on another computer."""
    assert config.base_model is not None
    if not Path(config.base_model).expanduser().exists():  # demo, or a name on the hub
        return []
    return [
        f"{config.base_model} is a path of this computer. Copy it to the other one and correct the line there; a "
        "single file is also found by its name in the model folders of a ComfyUI (COMFYUI_PATH)."
    ]


def _silence_diffusers() -> None:
    """Keep diffusers and transformers from telling about parts that are not used here."""
    import transformers.utils.logging

    # Before diffusers, whose import triggers messages from transformers.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    import diffusers.utils.logging

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
