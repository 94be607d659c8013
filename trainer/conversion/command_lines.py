"""Command lines that train, in shell scripts, batch files and PowerShell scripts, and the options in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .scripts import Script

SCRIPT = re.compile(r"(?:^|[\\/\s\"'])((?:\w*train\w*|fine_tune\w*)\.py|\w*train_network)(?=[\"'\s]|$)")
"""The name of a script that trains, without its folders."""

MARKS = re.compile(r"--(network_dim|network_module|pretrained_model_name_or_path)\b")
"""Options that only trainings have, for commands whose script is not named."""


@dataclass(frozen=True)
class CommandLine:
    """A command that trains.

    Attributes:
        script: the name of the script without ending, or "".
        options: the options by name without dashes: text, a list for several values, True for none.
        unset: the variables that the file does not set, by the option that they are in.
        repeated: the options that are there more than once; the last one counts, as it does there.
        launcher: the options of accelerate or another launcher in front of the script.
        unsure: sentences about what in the script could not be followed.
    """

    script: str
    options: dict[str, Any]
    unset: dict[str, str] = field(default_factory=dict)
    repeated: tuple[str, ...] = ()
    launcher: dict[str, Any] = field(default_factory=dict)
    unsure: tuple[str, ...] = ()


def command_lines(text: str) -> list[CommandLine]:
    """Return the commands in a text that start a script that trains with options."""
    script = Script()
    found = []
    for line in script.lines(text):
        match = SCRIPT.search(line)
        if "--" not in line or (match is None and not MARKS.search(line)):
            continue
        before, after = ("", line) if match is None else (line[: match.start()], line[match.end() :].lstrip("\"'"))
        if match is not None and line[match.start()] in "\\/":  # the folder of the script is no option
            before = before.rpartition(" ")[0]
        name = "" if match is None else match[1].removesuffix(".py")
        options, unset, repeated = options_of(after, script)
        if options:
            unsure = [
                f"{name} has several values in the script; the last one is taken" for name in sorted(script.changed)
            ]
            found.append(
                CommandLine(name, options, unset, tuple(repeated), options_of(before, script)[0], tuple(unsure))
            )
    if found and script.unknown:
        left = ", ".join(dict.fromkeys(script.unknown))
        text = f"the script adds {left} under conditions that are not followed here; write what they mean if they hold"
        found[-1] = CommandLine(**{**vars(found[-1]), "unsure": (*found[-1].unsure, text)})
    return found


def options_of(text: str, script: Script | None = None) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Return the options in a text, the variables in them that are not set, and what is there more than once."""
    known = script or Script()
    options: dict[str, Any] = {}
    unset: dict[str, str] = {}
    repeated: list[str] = []
    key = ""
    for word in _words(text):
        value = word
        if re.match(r"--[A-Za-z]", word):
            name, equals, value = word[2:].partition("=")
            key = name.replace("-", "_")
            if key in options:
                repeated.append(key)
            options[key] = True
            if not equals:
                continue
        elif not key or re.fullmatch(r"[|&;<>].*|\d?>.*", word):
            key = ""
            continue
        if missing := known.unset_in(value):
            unset[key] = missing[0]
            continue
        before = options[key]
        options[key] = value if before is True else [*before, value] if isinstance(before, list) else [before, value]
    for name in unset:
        if options.get(name) is True:
            del options[name]
    return options, unset, repeated


def _words(text: str) -> Iterator[str]:
    """Split a command into words as a shell does, but leave backslashes of Windows' paths alone."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="")
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "#", ""
    try:
        yield from lexer
    except ValueError:  # a quote that is not closed
        yield from text.split()
