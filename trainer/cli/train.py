"""The command `python -m trainer train`, which trains a LoRA as a config file says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config_options import add_config_options, config_and_dataset
from .idle_threads import let_idle_threads_sleep
from .opening import base_model_remarks, open_base_model
from .run import _run

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..data.base import Dataset


def add_train_command(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    train = commands.add_parser("train", help="train with the settings of a config file")
    add_config_options(train)
    add_retrain_option(train)
    train.add_argument(
        "--save_run",
        type=Path,
        metavar="FOLDER",
        help="train nothing, and write the config, the images, the masks and the captions to a folder for another "
        "computer",
    )
    train.set_defaults(command=_train)


def add_retrain_option(parser: argparse.ArgumentParser) -> None:
    """Add the option to train a run again that is finished or can be resumed."""
    parser.add_argument(
        "--retrain", action="store_true", help="train from scratch, even if the same run is finished or was interrupted"
    )


def _train(options: argparse.Namespace) -> None:
    let_idle_threads_sleep()
    config, dataset = config_and_dataset(options)
    if options.save_run is not None:
        print(_saved(config, dataset, options.save_run.expanduser()))
        return
    result = _run(config, dataset, options.retrain, download=options.download)
    print(result.report)


def _saved(config: TrainingConfig, dataset: Dataset, folder: Path) -> str:
    """Save a run as a folder, and return the report."""
    from tqdm import tqdm

    from ..runs.saved_run import save_run
    from ..training.plan import plan_run
    from .interrupt import asked_to_stop

    with asked_to_stop() as check, tqdm(total=1, desc="Saving", unit="image", dynamic_ncols=True, leave=False) as bar:

        def copied(done: int, total: int) -> None:
            check()
            bar.total, bar.n = total, done
            bar.refresh()

        plan = plan_run(open_base_model(config, check, weights=False), dataset, config)
        return save_run(folder, plan.dataset, plan.config, base_model_remarks(config), copied).text
