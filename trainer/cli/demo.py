"""The command `python -m trainer demo`, which trains on a demo model and shows what it learned."""

from __future__ import annotations

import argparse
from typing import Any

from .exit_status import Outcome
from .idle_threads import let_idle_threads_sleep
from .opening import _load
from .run import _run, facts_of
from .train import add_retrain_option


def add_demo_command(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    demo = commands.add_parser("demo", help="train on the demo model and show what it learned (about a minute)")
    demo.add_argument("--output_dir", default="output", help="folder for the results (default: output)")
    demo.add_argument("--text", action="store_true", help="train the demo language model instead of the image model")
    add_retrain_option(demo)
    demo.set_defaults(command=_demo)


def _demo(options: argparse.Namespace) -> Outcome:
    let_idle_threads_sleep()
    if options.text:
        return _demo_of_texts(options)
    from ..config import parse_config

    config = parse_config(
        {
            "base_model": "demo",
            "train_data_dir": "demo",
            "output_dir": options.output_dir,
            "output_name": "demo",
        }
    )
    print("Training a LoRA on the demo model: a new style for its colored shapes.")
    result = _run(config, _load(config), options.retrain)
    print(result.report)
    from ..demo.showcase import measure  # after `open_base_model`, which silences the packages

    outcome = measure(result.files.lora)
    picture = result.files.folder / "before_and_after.png"
    outcome.picture().save(picture)
    print(f"{outcome.text()}\nBefore and after: {picture}\nLoss: {result.files.folder / 'loss.png'}")
    return Outcome({**facts_of(result), "outcome": outcome.text()})


def _demo_of_texts(options: argparse.Namespace) -> Outcome:
    from ..config import parse_config
    from ..demo.text import SETTINGS

    config = parse_config({**SETTINGS, "output_dir": options.output_dir, "output_name": "demo_text"})
    print("Training a LoRA on the demo language model: twelve new words, and how to draw what they stand for.")
    result = _run(config, _load(config), options.retrain)
    print(result.report)
    from ..demo.text.showcase import measure

    outcome = measure(result.files.folder / "adapter").text()
    print(outcome)
    return Outcome({**facts_of(result), "outcome": outcome})
