"""Checks settings as a user gave them, and reports everything that is wrong with them at once."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ..errors import CrucibleError
from ..messages.suggestions import nearest_names
from .contradictions import contradictions
from .schema import SETTINGS, TrainingConfig

LONGEST_VALUE = 60
"""Characters of a wrong value that are quoted."""

KEYS = {alias: setting.name for setting in SETTINGS.values() for alias in (setting.name, *setting.aliases)}
"""Every key that is understood, with the field it stands for."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the settings. `keys` are the keys it concerns, as the user wrote them."""

    keys: tuple[str, ...]
    text: str


def parse_config(values: Mapping[str, Any]) -> TrainingConfig:
    """Makes a config of values from a file, a command line or a node.

    Keys may be aliases, numbers may be texts, `auto` and an absent key are the same.

    Raises:
        CrucibleError: names every wrong key and value, with the valid range or the nearest valid key.
    """
    config, problems = check_values(values)
    if config is None:
        raise config_error(problems)
    return config


def from_widgets(values: Mapping[str, Any]) -> TrainingConfig:
    """Makes a config of the values of a node's widgets, where a number stands for auto (`Setting.auto_number`).

    Raises:
        CrucibleError: as `parse_config`.
    """
    return parse_config({key: value for key, value in values.items() if not is_auto_widget(key, value)})


def is_auto_widget(key: str, value: Any) -> bool:
    """Whether a number widget leaves its value to the run."""
    setting = SETTINGS.get(KEYS.get(key, ""))
    if setting is None or not setting.is_number or not setting.may_be_auto or isinstance(value, bool):
        return False
    return isinstance(value, int | float) and value == setting.auto_number


def check_values(values: Mapping[str, Any]) -> tuple[TrainingConfig | None, list[Problem]]:
    """Returns the config and no problems, or None and every problem that was found."""
    problems: list[Problem] = []
    known: dict[str, Any] = {}
    written_as: dict[str, str] = {}
    for key, value in values.items():
        name = KEYS.get(str(key))
        if name is None:
            problems.append(_unknown_key(str(key)))
        elif name in known:
            first = written_as[name]
            problems.append(Problem((first, key), f"{first} and {key} are two names of one setting; keep one of them"))
        else:
            known[name] = value
            written_as[name] = str(key)
    read_names_of_layers(known, written_as)
    if all(SETTINGS[name].read(known.get(name)) is not None for name in ("epochs", "max_train_steps")):
        problems.append(_two_lengths(known.pop("epochs"), known.pop("max_train_steps"), written_as))
    right = written_as
    try:
        config = TrainingConfig.model_validate(known)
    except ValidationError as error:
        problems += [_wrong_value(dict(details), known, written_as) for details in error.errors()]
        wrong = {details["loc"][0] for details in error.errors()}
        # The rest can still contradict itself, or want what is not installed.
        right = {name: key for name, key in written_as.items() if name not in wrong}
        config = TrainingConfig.model_validate({name: value for name, value in known.items() if name in right})
    for names, text in contradictions(config, right):
        problems.append(Problem(tuple(right[name] for name in names if name in right), text))
    problems += _missing_packages(config, right)
    return (None if problems else config), problems


def config_error(
    problems: Iterable[Problem], *, source: str = "the settings", lines: Mapping[str, int] | None = None
) -> CrucibleError:
    """Puts problems into one message, in the order of their lines where these are known.

    Args:
        source: where the settings come from, to follow the word "in".
        lines: line number by key, as the user wrote it.
    """
    numbered = [(min((lines or {}).get(key, 0) for key in p.keys) if p.keys else 0, p.text) for p in problems]
    numbered.sort(key=lambda item: item[0])
    texts = [f"  line {line}: {text}" if line else f"  {text}" for line, text in numbered]
    count = "1 mistake" if len(texts) == 1 else f"{len(texts)} mistakes"
    return CrucibleError(
        f"There {'is' if len(texts) == 1 else 'are'} {count} in {source}:\n"
        + "\n".join(texts)
        + "\nNothing was started, because the run would not be the one you asked for. "
        "Correct this and start again."
    )


def _unknown_key(key: str) -> Problem:
    near = nearest_names(key, KEYS)
    hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(SETTINGS)}"
    return Problem((key,), f"{key} is not a known key; {hint}")


def read_names_of_layers(known: dict[str, Any], written_as: dict[str, str]) -> None:
    """Other trainers' target_modules are lists of layers: [q_proj, v_proj]."""
    value = known.get("target_modules")
    if isinstance(value, list | tuple) or (isinstance(value, str) and "," in value):
        known["layer_patterns"] = known.pop("target_modules")
        written_as["layer_patterns"] = written_as["target_modules"]


def _two_lengths(epochs: Any, steps: Any, written_as: Mapping[str, str]) -> Problem:
    """`TrainingConfig` checks this too, but only when every value by itself is right."""
    keys = written_as["epochs"], written_as["max_train_steps"]
    given = f"{keys[0]} = {quoted(epochs)} and {keys[1]} = {quoted(steps)}"
    text = f"{given} both say how long to train; keep one of them"
    return Problem(keys, text)


def _missing_packages(config: TrainingConfig, written_as: Mapping[str, str]) -> list[Problem]:
    problems = []
    for name, key in written_as.items():
        value = getattr(config, name)
        if (package := SETTINGS[name].missing_package(value)) is not None:
            text = (
                f"{key} = {value}, but the package {package}, which it comes from, is not installed in the Python that "
                f'runs here; install it with: "{sys.executable}" -m pip install {package}'
            )
            problems.append(Problem((key,), text))
    return problems


def _wrong_value(details: dict[str, Any], values: Mapping[str, Any], written_as: Mapping[str, str]) -> Problem:
    """Turns one of pydantic's errors into a problem, with the value as the user wrote it."""
    name = str(details["loc"][0])
    setting = SETTINGS[name]
    value = values[name]
    own_check = details["type"] == "value_error"
    text = str(details["msg"]).removeprefix("Value error, ") if own_check else f"it must be {setting.expected}"
    if setting.kind == "choice" and (near := nearest_names(str(value), setting.choices)):
        text += f"; did you mean {near[0]}?"
    key = written_as[name]
    return Problem((key,), f"{key} = {quoted(value)}, but {text}")


def quoted(value: Any) -> str:
    """A value as it is shown in a message: texts as they were written, anything long cut off."""
    text = value if isinstance(value, str) and value else repr(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
