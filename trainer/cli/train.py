"""The command `python -m trainer train`, which trains a LoRA as a config file says."""

from __future__ import annotations

import argparse
from typing import Any

from .config_options import add_config_options, config_and_dataset
from .idle_threads import let_idle_threads_sleep
from .run import _run


def add_train_command(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    train = commands.add_parser("train", help="train with the settings of a config file")
    add_config_options(train)
    add_retrain_option(train)
    train.set_defaults(command=_train)


def add_retrain_option(parser: argparse.ArgumentParser) -> None:
    """Add the option to train a run again that is finished or can be resumed."""
    parser.add_argument(
        "--retrain", action="store_true", help="train from scratch, even if the same run is finished or was interrupted"
    )


def _train(options: argparse.Namespace) -> None:
    let_idle_threads_sleep()
    config, dataset = config_and_dataset(options)
    result = _run(config, dataset, options.retrain, download=options.download)
    print(result.report)
