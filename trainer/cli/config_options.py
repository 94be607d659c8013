"""The options that name a config file, and what they are read to."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import CrucibleError
from .comfyui import enter_comfyui
from .opening import _load

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..data.base import Dataset


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a config file and override it."""
    parser.set_defaults(before=enter_comfyui)
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("config_file", nargs="?", metavar="CONFIG.yaml")
    either.add_argument("--config", metavar="CONFIG.yaml")
    precision = parser.add_mutually_exclusive_group()
    for name in ("fp16", "bf16"):
        precision.add_argument(
            f"--{name}", dest="precision", action="store_const", const=name, help=f"the same as mixed_precision: {name}"
        )
    parser.add_argument(
        "--download", action="store_true", help="download the language model from the hub if it is not there"
    )


def read_config_of(options: argparse.Namespace) -> tuple[TrainingConfig, str]:
    """Read the config that the options name.

    Returns:
        The config, and a sentence for the user if its task was guessed, or "".

    Raises:
        CrucibleError: the config cannot be read.
    """
    from ..config.yaml_file import checked, read_written
    from .task import with_task

    written, guess = with_task(read_written(options.config or options.config_file))
    if options.precision:
        written = written.replaced({"mixed_precision": options.precision})
    return checked(written), guess


def config_and_dataset(options: argparse.Namespace) -> tuple[TrainingConfig, Dataset]:
    """Read the config that the options name, and load its dataset.

    Raises:
        CrucibleError: the config or its dataset cannot be read, or they lack something.
    """
    from .task import require_task

    written, guess = with_task(read_written(options.config or options.config_file))
    if options.precision:
        written = written.replaced({"mixed_precision": options.precision})
    for line in filter(None, (guess, *written.notes)):
        print(line)
    config = checked(written)
    missing = [name for name in ("base_model", "train_data_dir") if getattr(config, name) is None]
    if missing:
        raise CrucibleError(
            f"The config file has no {' and no '.join(missing)}, so there is nothing to train on. Add "
            f"{' and '.join(f'`{name}: …`' for name in missing)}; the value `demo` stands for the model and the "
            "images that come with the package."
        )
    assert config.base_model is not None
    assert config.train_data_dir is not None
    require_task(config.task_type, config.base_model, config.train_data_dir)
    return config, _load(config)
