"""Command lines in shell scripts, batch files and PowerShell scripts, and the options in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SCRIPT = re.compile(r"(?:^|[\\/\s\"'])((?:\w*train\w*|fine_tune\w*))(?:\.py)?(?=[\"'\s]|$)")
"""The name of a script that trains, without its ending and its folders."""

_CONTINUED = re.compile(r"[ \t]*[\\^`][ \t]*\n[ \t]*")
"""A line that goes on in the next one: in a shell, in a batch file, or in PowerShell."""

_ASSIGNED = re.compile(
    r"^[ \t]*(?:export[ \t]+|set[ \t]+\"?|\$(?:env:)?)?([A-Za-z_]\w*)[ \t]*=[ \t]*(?!\()"
    r"(\"[^\"]*\"|'[^']*'|[^\s#;\"']*)",
    re.MULTILINE,
)
_ADDED = re.compile(
    r"^[^\S\n]*[\w$\[\].]*(?:ext|args)\w*[^\S\n]*(?:\+=|=)[^\S\n]*\(?((?:[\"']--.*?[\"']\)?[^\S\n]*)+)", re.I | re.M
)
"""Options that a script collects in a list before it gives all of them to the command."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}|\$(?:env:)?([A-Za-z_]\w*)|%([A-Za-z_]\w*)%")


@dataclass(frozen=True)
class CommandLine:
    """A command that trains.

    Attributes:
        script: the name of the script without ending.
        options: the options by name without dashes: text, a list for several values, True for none.
        unset: the names of variables that the file does not set, by option.
        repeated: the options that are there more than once; the last one counts, as it does there.
        launcher: the options of accelerate or another launcher in front of the script.
    """

    script: str
    options: dict[str, Any]
    unset: dict[str, str] = field(default_factory=dict)
    repeated: tuple[str, ...] = ()
    launcher: dict[str, Any] = field(default_factory=dict)


def command_lines(text: str) -> list[CommandLine]:
    """Return the commands in a text that start a script that trains with options."""
    variables = _variables(text)
    added = " ".join(part for match in _ADDED.findall(text) for part in re.findall(r"[\"'](--.*?)[\"']", match))
    found = []
    for line in _CONTINUED.sub(" ", text).splitlines():
        plain = line.strip()
        if plain.startswith(("#", "REM ", "rem ", "::", "echo ")) or "--" not in plain:
            continue
        match = SCRIPT.search(plain)
        if match is None and not re.search(r"--(network_dim|network_module|pretrained_model_name_or_path)\b", plain):
            continue
        script, words = ("", plain) if match is None else (match[1], plain[match.end() :].lstrip("\"'"))
        before = "" if match is None else plain[: match.start()]
        options, unset, repeated = options_of(f"{words} {added}", variables)
        if options:
            found.append(CommandLine(script, options, unset, tuple(repeated), options_of(before, variables)[0]))
    return found


def _variables(text: str) -> dict[str, str]:
    """Return the variables that a script sets to plain values."""
    values: dict[str, str] = {}
    for match in _ASSIGNED.finditer(text):
        name, value = match[1], match[2].strip("\"'")
        if not name.startswith("--"):
            values[name] = _VARIABLE.sub(lambda one: _value_of(one, values) or one[0], value)
    return values


def _value_of(match: re.Match[str], variables: Mapping[str, str]) -> str | None:
    name = match[1] or match[3] or match[4]
    return variables.get(name, match[2])


def options_of(text: str, variables: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Return the options of a command, the variables in them that are not set, and what is there twice."""
    options: dict[str, Any] = {}
    unset: dict[str, str] = {}
    repeated: list[str] = []
    key = ""
    for word in _words(text):
        if re.match(r"--[A-Za-z]", word):
            name, equals, value = word[2:].partition("=")
            key = name.replace("-", "_")
            if key in options:
                repeated.append(key)
            options[key] = True
            if not equals:
                continue
            word = value
        elif not key:
            continue
        missing = [one[0] for one in _VARIABLE.finditer(word) if _value_of(one, variables) is None]
        if missing:
            unset[key] = missing[0]
        value = _VARIABLE.sub(lambda one: _value_of(one, variables) or one[0], word)
        before = options[key]
        options[key] = value if before is True else [*before, value] if isinstance(before, list) else [before, value]
    for name in unset:
        options.pop(name, None)
    return options, unset, repeated


def _words(text: str) -> Iterator[str]:
    """Split a command into words as a shell does, but leave backslashes of Windows' paths alone."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="")
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "#", ""
    try:
        yield from lexer
    except ValueError:  # a quote that is not closed
        yield from text.split()
