"""The help of commands that train, with a list of all settings that is made from their definitions."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CrucibleError

if TYPE_CHECKING:
    from ..config import Setting

INDENT = " " * 6


class HelpWithSettings(argparse.Action):
    """Prints the help of a command and the list of settings, and ends it."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        text = "show this help, with every setting, and exit"
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=text)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        from ..doctor.requirements import require_packages

        parser.print_help()
        print()
        try:
            require_packages()
            print(settings_text(shutil.get_terminal_size((100, 24)).columns))
        except CrucibleError as error:
            print(f"The settings cannot be listed. {error}")
        parser.exit()


def settings_text(width: int) -> str:
    """Return every setting with its default, what it does, and which values it can have.

    Args:
        width: the most characters of a line.
    """
    from ..config import SETTINGS
    from ..planning.decided_by import DECIDED_BY, DECIDED_BY_FOR_TEXTS

    parts = [
        "Every setting, as a line of a config file (key: value) or of the command line (--set key=value). auto means "
        "that a value is chosen for the model and the data; the command check shows which, and why.",
    ]
    for title, task in (
        ("For images and language models", None),
        ("For images only", "text-to-image"),
        ("For language models only", "text-generation"),
    ):
        parts.append(f"\n{title}:")
        decided = DECIDED_BY | DECIDED_BY_FOR_TEXTS if task == "text-generation" else DECIDED_BY
        parts += [_text(one, decided.get(one.name, ""), width) for one in SETTINGS.values() if one.task == task]
    first, *rest = parts
    return "\n".join([textwrap.fill(first, width), *rest])


def _text(setting: Setting, decided_by: str, width: int) -> str:
    default = "auto" if setting.default is None and setting.may_be_auto else setting.default
    if default == "auto" and decided_by:
        default = f"auto: {decided_by}"
    default = str(default).lower() if isinstance(default, bool) else default
    shown = "(nothing)" if default in (None, "") else default
    values = "" if setting.kind == "text" else f" It is {setting.expected}."
    about = textwrap.fill(
        f"{setting.description}{values}", width, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False
    )
    return f"  {setting.name} = {shown}\n{about}"
