"""The command line: `python -m trainer demo | train | check | caption | merge | resize | convert | sample | doctor`.

Only the standard library is imported when this module loads, so that it can report missing packages.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from ..doctor.requirements import STANDALONE, require_packages
from ..errors import CrucibleError
from .caption import add_caption_command
from .check import add_check_command
from .demo import add_demo_command
from .doctor import add_doctor_command
from .lora import add_lora_commands
from .output import safe_output
from .sample import add_sample_command
from .train import add_train_command

COMMANDS = "demo | train | check | caption | merge | resize | convert | sample | doctor"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit status: 0 for success, 1 for an error that the user can fix, 130 after Ctrl-C. A reader that closes
        the output early, such as `head`, does not change it.
    """
    # peft imports bitsandbytes wherever it is installed, which then tells what could make 4 bits faster on this CPU.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with safe_output() as output:
        typed = sys.argv[1:] if arguments is None else arguments
        status = _status(_parser().parse_args(typed, argparse.Namespace(arguments=typed)))
        output.flush()
        if output.lost is not None:
            reason = output.lost.strerror or output.lost
            print(f"\nerror: The output could not be written completely ({reason}).", file=sys.stderr)
            return status or 1
        return status


def _status(options: argparse.Namespace) -> int:
    try:
        if options.before is not None:
            options.before(options)
        if options.needs is not None:
            require_packages(options.needs)
        return options.command(options) or 0
    except CrucibleError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train LoRA adapters without ComfyUI.")
    parser.set_defaults(needs=STANDALONE, before=None)
    commands = parser.add_subparsers(required=True, metavar=COMMANDS)

    add_demo_command(commands)
    add_train_command(commands)
    add_check_command(commands)
    add_caption_command(commands)
    add_lora_commands(commands)
    add_sample_command(commands)
    add_doctor_command(commands)
    return parser
