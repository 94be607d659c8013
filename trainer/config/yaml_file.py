"""Reading the settings of a training run from YAML."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import CrucibleError
from ..files.text import read_file_text
from ..messages.suggestions import nearest_path
from .paths import counted_from, find_path, path_kind, read_path
from .schema import SETTINGS, TrainingConfig
from .validation import KEYS, Problem, check_values, config_error, meant_by, plain_key

log = logging.getLogger(__name__)

NULL_WORDS = ("", "~", "null", "Null", "NULL")

WIDE_COLON = "\uff1a"
"""The colon of Chinese and Japanese keyboards."""

SETTING_START = re.compile(r"(?:^|(?<=[\s,]))([A-Za-z_]\w*):(?=\s|$)")


@dataclass(frozen=True)
class WrittenSettings:
    """Settings as they were written, before the schema validates them.

    Attributes:
        source: where the settings come from, as a phrase that follows "in".
        values: the written value of each key.
        lines: the line number of each key, or the option of the command line that it was given with.
        problems: what is wrong whatever the values mean: keys that appear more than once, paths with variables that
            are not set.
        notes: sentences for the user about how the values were read.
    """

    source: str
    values: dict[str, Any]
    lines: dict[str, int | str]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    def replaced(self, values: Mapping[str, Any]) -> WrittenSettings:
        """Return the settings with these values in place of any key that says something about the same settings."""
        named = {name for key, value in values.items() for name in meant_by(key, value) or ()}
        kept = {key: value for key, value in self.values.items() if not set(meant_by(key, value) or ()) & named}
        return replace(self, values={**kept, **values})

    def overridden(self, options: Mapping[str, tuple[str, str]], folder: Path) -> WrittenSettings:
        """Return the settings with values that were given on the command line in place of those of the file.

        Args:
            options: the option and the value of each key. Values are as in a file, and relative paths count from
                `folder`.
            folder: the folder that the command was started in, absolute.

        Raises:
            CrucibleError: a value that starts like a list or a section cannot be read as one.
        """
        values = {key: _value_of_option(option, key, text) for key, (option, text) in options.items()}
        places: dict[str, int | str] = {key: option for key, (option, _) in options.items()}
        given = with_paths(WrittenSettings("the options", values, places, ()), folder)
        found = self.replaced({key: given.values[key] for key in values})
        lines = {**self.lines, **places}
        # A path that is not used may well have a variable that is not set.
        remaining = [one for one in self.problems if any(key in found.values and key not in values for key in one.keys)]
        return replace(found, lines=lines, problems=(*remaining, *given.problems))


def _value_of_option(option: str, key: str, text: str) -> Any:
    if not text.startswith(("[", "{")):
        return text
    try:
        read = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if read is None else _value(read)
    except yaml.YAMLError as error:
        raise CrucibleError(
            f"{option} {key}={text} starts like a list, but cannot be read as one, so that it is not known what to "
            "train with. Write a list as [a, b], and put the whole option in quotes.",
            "settings",
        ) from error


def read_config(path: str | Path) -> TrainingConfig:
    """Read a config file, and validate its settings.

    Raises:
        CrucibleError: the file is missing or not in the form of `read_written`, or a setting is wrong; the message then
            names everything that is wrong, each with its line.
    """
    return checked(read_written(path))


def read_written(path: str | Path) -> WrittenSettings:
    """Read a config file with one `key: value` per line.

    Values are taken as they are written, and only the schema gives them a meaning: `2e-4` is a number where a number is
    expected, and `no` and `007` remain text where text is.

    Raises:
        CrucibleError: the file is missing or not in this form.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise _no_file(path)
    read = read_file_text(path)
    if read.guess:
        log.warning("The config file %s is not UTF-8: %s, which is a guess. Save it as UTF-8.", path, read.guess)
    return with_paths(read_settings(read.text, f"the config file {path}"), path.absolute().parent)


def checked(written: WrittenSettings) -> TrainingConfig:
    """Validate settings that were read, and build a config from them.

    Raises:
        CrucibleError: a setting is wrong; the message names everything that is wrong, each with its line.
    """
    config, problems = check_values(written.values)
    if config is None or written.problems:
        raise config_error([*problems, *written.problems], source=written.source, lines=written.lines)
    return config


def with_paths(written: WrittenSettings, folder: Path) -> WrittenSettings:
    """Return settings whose paths are absolute, with a note if some were relative.

    `~` and environment variables are replaced, and relative paths count from the folder. So does the output folder
    if no line sets it, so that the same command finds its run again wherever it is started.

    Args:
        folder: the folder of the file that the settings were read from, absolute.
    """
    values, problems = dict(written.values), list(written.problems)
    relative: dict[str, str] = {}
    for key, value in written.values.items():
        for name in meant_by(key, value) or ():
            kind = path_kind(name)
            text = read_path(name, value) if kind else None
            if not kind or text is None:
                continue
            found = [find_path(line.strip(), folder, kind) for line in text.splitlines() if line.strip()]
            if unset := tuple(variable for one in found for variable in one.unset):
                problems.append(_unset(key, text, unset))
            values[key] = "\n".join(one.path for one in found)
            if any(one.was_relative for one in found):
                relative[name] = ", ".join(one.path for one in found)
    if not any("output_dir" in (meant_by(key, value) or ()) for key, value in written.values.items()):
        output = find_path(SETTINGS["output_dir"].default, folder, "path").path
        values["output_dir"] = output
        relative |= {"output_dir": output} if relative else {}
    notes = (*written.notes, counted_from(folder, relative)) if relative else written.notes
    return replace(written, values=values, problems=tuple(problems), notes=notes)


def _unset(key: str, text: str, names: Sequence[str]) -> Problem:
    several = len(names) > 1
    return Problem(
        (key,),
        f"{key} = {text}, but the environment variable{'s' * several} {' and '.join(names)} "
        f"{'are' if several else 'is'} not set; set {'them' if several else 'it'}, or write the path out",
    )


def read_settings(text: str, source: str) -> WrittenSettings:
    """Read settings from text with one `key: value` per line.

    Args:
        source: where the text comes from, as a phrase that follows "in".

    Raises:
        CrucibleError: the text is not in this form.
    """
    root = _parse(text, source)
    values: dict[str, Any] = {}
    lines: dict[str, int | str] = {}
    repeated: list[Problem] = []
    for key_node, value_node in root.value:
        key = str(_value(key_node))
        line = key_node.start_mark.line + 1
        if key in values:
            repeated.append(Problem((key,), f"{key} is in line {lines[key]} and again in line {line}; keep one"))
            continue
        values[key], lines[key] = _value(value_node), line
    return WrittenSettings(source, values, lines, tuple(repeated))


def _parse(text: str, source: str) -> yaml.MappingNode:
    if len(_settings_of_one_line(text)) > 1:
        raise _one_line(text, source)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _not_yaml(error, text, source) from error
    if root is None:
        raise CrucibleError(
            f"{_start(source)} is empty, so there is nothing to train. Write one setting per line, "
            "for example:\n  train_data_dir: path/to/images"
        )
    if not isinstance(root, yaml.MappingNode):
        raise CrucibleError(
            f"{_start(source)} is not a list of settings{_missing_space(text)}. "
            "Write one setting per line, with a colon and a space between key and value, for example:\n"
            "  lora_rank: 8"
        )
    return root


def _value(node: yaml.Node, depth: int = 0) -> Any:
    """Convert a YAML node to plain Python: text, None, lists and dictionaries."""
    if isinstance(node, yaml.ScalarNode):
        return None if node.style is None and node.value in NULL_WORDS else str(node.value)
    if depth > 1:  # no setting is nested deeper, and aliases could nest endlessly
        return "…"
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, depth + 1) for item in node.value]
    return {str(_value(key, depth + 1)): _value(value, depth + 1) for key, value in node.value}


def _start(source: str) -> str:
    """Capitalise a source to start a sentence with it."""
    return source[:1].upper() + source[1:]


def _no_file(path: Path) -> CrucibleError:
    path = path.absolute()
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if file.suffix.lower() in (".yaml", ".yml"))
        found = f"The folder contains {', '.join(files[:5])}" if files else "The folder contains no YAML file"
        return CrucibleError(f"The config file {path} is a folder. {found}. Give the path of a file.")
    return CrucibleError(
        f"The config file {path} does not exist, so there are no settings to train with. "
        f"{nearest_path(path)} Correct the path."
    )


def _settings_of_one_line(text: str) -> Sequence[re.Match[str]]:
    """Return the places where known keys start in text on a single line; there are none in text on several lines."""
    content = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(content) != 1 or content[0].lstrip().startswith("{"):
        return ()
    return [match for match in SETTING_START.finditer(content[0]) if match[1] in KEYS]


def _one_line(text: str, source: str) -> CrucibleError:
    line = max(text.splitlines(), key=lambda line: len(SETTING_START.findall(line)))
    starts = [match.start() for match in SETTING_START.finditer(line)]
    settings = [line[a:b].strip(" ,") for a, b in zip(starts, [*starts[1:], None], strict=True)]
    return CrucibleError(
        f"All settings of {source} are on one line, which YAML reads as a single value. "
        "Put each on its own line:\n" + "\n".join(f"  {setting}" for setting in settings)
    )


def _not_yaml(error: yaml.YAMLError, text: str, source: str) -> CrucibleError:
    mark = getattr(error, "problem_mark", None)
    where, quote = "", ""
    if mark is not None:
        written = text.split("\n")
        # The end of the file is where YAML notices what is wrong in the last line.
        number = next((n for n in range(min(mark.line, len(written) - 1), -1, -1) if written[n].strip()), 0)
        suspect = _without_space(text)
        number = number if suspect is None else suspect - 1
        where, quote = f" in line {number + 1}", f":\n  {written[number].strip()}"
    problem = str(getattr(error, "problem", None) or error)
    return CrucibleError(
        f"{_start(source)} cannot be understood{where}{quote}\n{_hint(problem, text)} "
        f"Nothing was started. (YAML says: {problem})"
    )


def _hint(problem: str, text: str) -> str:
    if "\\t" in problem or "tab" in problem:
        return "The line starts with a tab; YAML only allows spaces there."
    if "escape" in problem:
        return r"In double quotes a backslash has a special meaning; use single quotes, as in 'C:\images'."
    if "cannot start any token" in problem:
        return "A value that starts with %, @ or ` must be in quotes, as in '%USERPROFILE%/images'."
    if "mapping values" in problem:
        return (
            "Every line must contain one setting and start in the same column as the other lines; a value that "
            "contains a colon and a space must be in quotes."
        )
    if missing := _missing_space(text):
        return f"The setting cannot be read{missing}."
    return "Every line must be a key, a colon, a space and a value; quotes must be closed."


def _missing_space(text: str) -> str:
    """Return a remark on the first setting without a colon and a space, which YAML does not read as a setting."""
    number = _without_space(text)
    if number is None:
        return ""
    line = text.split("\n")[number - 1].strip()
    if WIDE_COLON in line:
        return f" (the colon in line {number} is a full-width one, {WIDE_COLON}; write a colon and a space: {line})"
    return f" (there is no space after the colon in line {number}: {line})"


def _without_space(text: str) -> int | None:
    """Return the number of the first line that has a known key, but not with a colon and a space after it."""
    for number, line in enumerate(text.split("\n"), start=1):
        match = re.match(rf"\s*(\w+)\s*(?::(?=\S)|{WIDE_COLON})", line)
        if match and plain_key(match[1]) in KEYS:
            return number
    return None
