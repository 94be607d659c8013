"""The command line of `python -m trainer`.

Only the standard library is imported when this module loads, so that it can report missing packages.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from ..doctor.requirements import STANDALONE, require_packages
from ..errors import CrucibleError
from .caption import add_caption_command
from .check import add_check_command
from .convert_config import add_convert_config_command
from .demo import add_demo_command
from .display import Bars, Display, Events, Lines, shown_by
from .doctor import add_doctor_command
from .exit_status import ExitStatus, Outcome, status_of
from .interrupt import Stopped, stopped_by_signals
from .lora import add_lora_commands
from .nearest_option import NearestOptionParser
from .output import safe_output
from .sample import add_sample_command
from .several import RESULT
from .train import add_train_command

ADD_COMMANDS: tuple[Callable[[Any], None], ...] = (
    add_demo_command,
    add_train_command,
    add_check_command,
    add_caption_command,
    add_sample_command,
    add_lora_commands,
    add_convert_config_command,
    add_doctor_command,
)

QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
"""Variables that keep libraries from telling their makers what is used, unless the user has set them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit status, one of `ExitStatus`, or 128 plus the number of the signal that stopped the command. A reader
        that closes the output early, such as `head`, does not change it.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # peft imports bitsandbytes wherever it is installed, which then tells what could make 4 bits faster on this CPU.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with safe_output() as output:
        typed = sys.argv[1:] if arguments is None else arguments
        options = _parser().parse_args(typed, argparse.Namespace(arguments=typed))
        with _shown(options, cast(TextIO, output)) as display, stopped_by_signals():
            outcome = _outcome(options, display)
            facts = {"command": options.name, "exit": int(outcome.status), **display.run, **outcome.facts}
            display.close()
            display.finished(facts)
            _hand_over(facts)
        output.flush()
        if output.lost is not None:
            reason = output.lost.strerror or output.lost
            print(f"\nerror: The output could not be written completely ({reason}).", file=sys.stderr)
            return outcome.status or ExitStatus.DISK
        return outcome.status


def _outcome(options: argparse.Namespace, display: Display) -> Outcome:
    """Run the command, and turn whatever ends it into its outcome."""
    try:
        if options.before is not None:
            options.before(options)
        if options.needs is not None:
            require_packages(options.needs)
        return options.command(options) or Outcome()
    except CrucibleError as error:
        return _failed(display, status_of(error), str(error), kind=error.kind)
    except KeyboardInterrupt as stop:
        display.close()
        print("\nStopped.", file=sys.stderr)
        return Outcome(status=stop.status if isinstance(stop, Stopped) else Stopped(2).status)
    except Exception as error:
        if _is_out_of_memory(error):
            text = f"There is not enough memory ({error}). Close other programs that use memory, then start again."
            return _failed(display, ExitStatus.MEMORY, text, kind="memory")
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = f"The disk is full: {error}. Free some space on it, then start again."
            return _failed(display, ExitStatus.DISK, text, kind="disk")
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            text = (
                f"{error.filename} is longer than the name of a file or folder can be, so nothing can be read or "
                "written there. Correct the path."
            )
            return _failed(display, ExitStatus.SETTINGS, text, kind="settings")
        display.close()
        traceback.print_exc()
        text = f"Something went wrong that should not have ({type(error).__name__}: {error}). Please report the above."
        return _failed(display, ExitStatus.OTHER, text, kind="")


def _failed(display: Display, status: ExitStatus, text: str, *, kind: str) -> Outcome:
    display.close()
    print(f"\nerror: {text}", file=sys.stderr)
    return Outcome({"kind": kind, "error": text}, status)


def _is_out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from ..hardware.out_of_memory import is_out_of_memory

    return is_out_of_memory(error)


@contextmanager
def _shown(options: argparse.Namespace, output: TextIO) -> Iterator[Display]:
    """Choose what shows the progress of a command, and let it show warnings, too.

    With `--json`, what is meant for people goes to the standard error stream. A process beside the one that writes
    the files of a run shows errors only.
    """
    with ExitStack() as stack:
        display: Display
        if os.environ.get("RANK", "0") != "0":
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            display = Display()
        elif options.json:
            stack.enter_context(redirect_stdout(sys.stderr))
            display = Events(output, _common(options))
        elif sys.stdout.isatty() and sys.stderr.isatty():
            display = Bars()
        else:
            display = Lines(sys.stdout if options.name in ("train", "demo") else sys.stderr)
        handler = _Warnings(display)
        root = logging.getLogger()
        root.addHandler(handler)
        stack.callback(root.removeHandler, handler)
        yield stack.enter_context(shown_by(display))


def _common(options: argparse.Namespace) -> dict[str, str]:
    """Return what every event of a command tells: the config file, if there is a single one."""
    files = getattr(options, "config_files", None) or getattr(options, "config", None) or []
    files = files if isinstance(files, list) else [files]
    return {"config": files[0]} if len(files) == 1 else {}


class _Warnings(logging.Handler):
    def __init__(self, display: Display) -> None:
        super().__init__(logging.WARNING)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        self._display.warn(record.getMessage())


def _hand_over(facts: Mapping[str, Any]) -> None:
    """Tell the process that trains several configs how this one ended."""
    if path := os.environ.get(RESULT):
        with suppress(OSError):  # then its summary only has the exit status
            Path(path).write_text(json.dumps(facts, default=str), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = NearestOptionParser(prog="python -m trainer", description="Train LoRA adapters on the command line.")
    parser.set_defaults(needs=STANDALONE, before=None)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="name")
    for add in ADD_COMMANDS:
        add(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--json", action="store_true", help="report progress and results as JSON, one object per line"
        )
    return parser
