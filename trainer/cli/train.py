"""The command `python -m trainer train`, which trains a LoRA as a config file says, or several one after the other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..distributed.launch import are_several
from ..errors import CrucibleError
from .config_options import add_config_options, arguments_of, config_and_dataset, configs_of
from .display import display
from .exit_status import Outcome
from .idle_threads import let_idle_threads_sleep
from .opening import base_model_remarks, open_base_model
from .run import _run, facts_of
from .settings_help import HelpWithSettings
from .with_others import with_others

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..data.base import Dataset


def add_train_command(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    train = commands.add_parser("train", help="train with the settings of one or several config files", add_help=False)
    train.add_argument("-h", "--help", action=HelpWithSettings)
    add_config_options(train, several=True)
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


def _train(options: argparse.Namespace) -> Outcome:
    configs = configs_of(options)
    if len(configs) > 1:
        from .several import train_several

        if options.save_run is not None:
            raise CrucibleError(
                f"--save_run {options.save_run} writes one run to a folder, but {len(configs)} configs are named. Save "
                "them one after the other, each to a folder of its own.",
                "settings",
            )
        return train_several(configs, [*arguments_of(options), *["--retrain"] * options.retrain], options.json)
    let_idle_threads_sleep()
    with with_others():
        config, dataset = config_and_dataset(options)
        if options.save_run is not None:
            _require_one_process(options.save_run)
            return _saved(config, dataset, options.save_run.expanduser())
        result = _run(config, dataset, options.retrain, download=options.download)
        print(result.report)
        return Outcome(facts_of(result))


def _require_one_process(folder: Path) -> None:
    if are_several():
        raise CrucibleError(
            f"--save_run {folder} was given to several processes, which would write the same folder at the same time. "
            "Leave the launcher out: python -m trainer train CONFIG.yaml --save_run FOLDER.",
            "settings",
        )


def _saved(config: TrainingConfig, dataset: Dataset, folder: Path) -> Outcome:
    """Save a run as a folder."""
    from ..runs.saved_run import save_run
    from ..training.plan import plan_run
    from .interrupt import asked_to_stop

    with asked_to_stop() as check:

        def copied(done: int, total: int) -> None:
            check()
            display().working("Saving", done, total, "image")

        plan = plan_run(open_base_model(config, check, weights=False), dataset, config)
        report = save_run(folder, plan.dataset, plan.config, base_model_remarks(config), copied).text
    print(report)
    return Outcome({"folder": str(folder), "report": report})
