"""Validation of settings as a user wrote them, which reports everything that is wrong at once."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ..errors import CrucibleError
from ..messages.suggestions import nearest_names
from .contradictions import contradictions
from .foreign_keys import ELSEWHERE
from .foreign_values import FOREIGN, meaning
from .sample_prompts import problems_of_prompts
from .schema import SETTINGS, TrainingConfig
from .setting import AUTO_NUMBER, INVISIBLE
from .tasks import of_other_task

LONGEST_VALUE = 60
"""The most characters of a wrong value that a message quotes."""

MOST_SHARE = 0.9
"""The largest fraction of all steps that a warmup may take, as in lr_warmup_ratio."""

SAME_WORD = 0.85
"""How similar a key must be to a valid one, from 0 to 1, to be taken for its misspelling."""

KEYS = {alias: setting.name for setting in SETTINGS.values() for alias in (setting.name, *setting.aliases)}
"""Every accepted key, including aliases, with the name of the field that it stands for."""


@dataclass(frozen=True)
class Problem:
    """A mistake in the settings.

    Attributes:
        keys: the keys concerned, as the user wrote them.
        text: the message for the user.
        asks_for_keys: whether a list of the valid keys would help.
    """

    keys: tuple[str, ...]
    text: str
    asks_for_keys: bool = False


def parse_config(values: Mapping[str, Any]) -> TrainingConfig:
    """Build a config from values in a file, on a command line or of a node.

    Keys may be aliases and numbers may be text; `auto` means the same as an absent key.

    Raises:
        CrucibleError: a key or value is wrong; the message names all that are, with the valid range or the nearest
            valid key.
    """
    config, problems = check_values(values)
    if config is None:
        raise config_error(problems)
    return config


def from_widgets(values: Mapping[str, Any]) -> TrainingConfig:
    """Build a config from the values of a node's widgets, where `AUTO_NUMBER` stands for auto.

    Raises:
        CrucibleError: a value is wrong, as in `parse_config`.
    """
    return parse_config({key: value for key, value in values.items() if not is_auto_widget(key, value)})


def is_auto_widget(key: str, value: Any) -> bool:
    """Return whether the value of a number widget stands for auto."""
    setting = SETTINGS.get(KEYS.get(key, ""))
    if setting is None or not setting.is_number or not setting.may_be_auto or isinstance(value, bool):
        return False
    return isinstance(value, int | float) and value == AUTO_NUMBER


def check_values(values: Mapping[str, Any]) -> tuple[TrainingConfig | None, list[Problem]]:
    """Validate values, and return the config and no problems, or None and every problem that was found."""
    problems: list[Problem] = []
    known: dict[str, Any] = {}
    written_as: dict[str, str] = {}
    for key, value in values.items():
        meant = meant_by(str(key), value)
        if meant is None:
            problems.append(_unknown_key(str(key), value))
            continue
        for name, its_value in meant.items():
            if name not in known:
                known[name], written_as[name] = its_value, str(key)
                continue
            first = written_as[name]
            both_names = plain_key(first) in KEYS and plain_key(str(key)) in KEYS
            if both_names or not _same(name, known[name], its_value):
                problems.append(Problem((first, key), f"{first} and {key} are two names of the same setting; keep one"))
    read_names_of_layers(known, written_as)
    if all(SETTINGS[name].read(known.get(name)) is not None for name in ("epochs", "max_train_steps")):
        problems.append(_two_lengths(known.pop("epochs"), known.pop("max_train_steps"), written_as))
    right = written_as
    try:
        config = TrainingConfig.model_validate(known)
    except ValidationError as error:
        problems += [_wrong_value(dict(details), known, written_as) for details in error.errors()]
        wrong = {details["loc"][0] for details in error.errors()}
        # The other values may still contradict each other, or need a package that is not installed.
        right = {name: key for name, key in written_as.items() if name not in wrong}
        config = TrainingConfig.model_validate({name: value for name, value in known.items() if name in right})
    for names, text in [*contradictions(config, right), *of_other_task(config, right)]:
        problems.append(Problem(tuple(right[name] for name in names if name in right), text))
    if config.task_type == "text-to-image":
        prompts = right.get("sample_prompts", "sample_prompts")
        problems += [Problem((prompts,), f"{prompts}: {text}") for text in problems_of_prompts(config.sample_prompts)]
    problems += _missing_packages(config, right)
    return (None if problems else config), problems


def meant_by(key: str, value: Any) -> dict[str, Any] | None:
    """Return the settings that a key with this value stands for; None for an unknown key.

    Most keys are the name of a setting, or an alias of it. Some keys of other trainers stand for other settings, and
    some for what is always so here, which is no setting at all.
    """
    plain = plain_key(key)
    if (meant := meaning(plain, value)) is not None:
        return meant
    if plain not in KEYS:
        return None
    name = KEYS[plain]
    share = _share(value) if SETTINGS[name].share else None
    return {name: value} if share is None else {SETTINGS[name].share: share}


def _share(value: Any) -> float | None:
    """Return the fraction that a number of steps is written as, in percent or as a number below 1; None for steps.

    kohya's trainer and transformers read a number below 1 as a fraction, too.
    """
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    is_share = text.endswith("%") or 0 < number < 1
    return number if is_share and 0 <= number <= MOST_SHARE else None


def _same(name: str, *values: Any) -> bool:
    """Return whether values of a setting, as they were written, mean the same."""
    read = [SETTINGS[name].read(str(value).lower()) for value in values]
    return read[0] == read[1]


def plain_key(key: str) -> str:
    """Return a key without invisible letters, and with full-width ones as ordinary ones."""
    return unicodedata.normalize("NFKC", key.translate(INVISIBLE)).strip()


def config_error(
    problems: Sequence[Problem], *, source: str = "the settings", lines: Mapping[str, int | str] | None = None
) -> CrucibleError:
    """Combine problems into one error, in the order of their lines if these are known.

    Args:
        source: where the settings come from, as a phrase that follows "in".
        lines: the line number of each key, as the user wrote it, or the option that it was given with.
    """
    numbered = [(_place([(lines or {}).get(key, 0) for key in p.keys]), p.text) for p in problems]
    numbered.sort(key=lambda item: (isinstance(item[0], str), item[0]))
    named = (f"line {place}" if place and isinstance(place, int) else place for place, _ in numbered)
    texts = [f"  {place}: {text}" if place else f"  {text}" for place, (_, text) in zip(named, numbered, strict=True)]
    is_one = len(texts) == 1
    if any(problem.asks_for_keys for problem in problems):
        texts.append(f"  The valid keys are {', '.join(SETTINGS)}.")
    return CrucibleError(
        f"There {'is 1 mistake' if is_one else f'are {len(numbered)} mistakes'} in {source}:\n"
        + "\n".join(texts)
        + "\nNothing was started, because the run would not be the one you asked for. "
        "Fix the above and start again.",
        "settings",
    )


def _place(places: Sequence[int | str]) -> int | str:
    """Return where the keys of a problem are: the option if any was given with one, otherwise the first line."""
    options = [place for place in places if isinstance(place, str)]
    return options[0] if options else min((place for place in places if isinstance(place, int)), default=0)


def _unknown_key(key: str, value: Any) -> Problem:
    if (foreign := FOREIGN.get(key)) is not None:
        return Problem((key,), f"{key} = {quoted(value)} is of other trainers; {foreign.instead}")
    if key in ELSEWHERE:
        return Problem((key,), f"{key} is a key of other trainers; {ELSEWHERE[key]}")
    if isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(one, Mapping) for one in value)):
        return Problem((key,), f"{key} is a section; write its settings without it, one per line")
    near = nearest_names(key, KEYS, cutoff=SAME_WORD)
    return Problem((key,), f"{key} is not a known key" + (f"; did you mean {near[0]}?" if near else ""), not near)


def read_names_of_layers(known: dict[str, Any], written_as: dict[str, str]) -> None:
    """Move a list of layers, which other trainers call `target_modules` ([q_proj, v_proj]), to `layer_patterns`."""
    value = known.get("target_modules")
    if isinstance(value, list | tuple) or (isinstance(value, str) and "," in value):
        known["layer_patterns"] = known.pop("target_modules")
        written_as["layer_patterns"] = written_as["target_modules"]


def _two_lengths(epochs: Any, steps: Any, written_as: Mapping[str, str]) -> Problem:
    """Report that epochs and steps are both set. `TrainingConfig` only checks this once every single value is valid."""
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
                f"{key} = {value}, but the package {package}, which provides it, is not installed in the Python "
                f'environment in use; install it with: "{sys.executable}" -m pip install {package}'
            )
            problems.append(Problem((key,), text))
    return problems


def _wrong_value(details: dict[str, Any], values: Mapping[str, Any], written_as: Mapping[str, str]) -> Problem:
    """Convert one of pydantic's errors into a problem that quotes the value as the user wrote it."""
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
    """Return a value as a message shows it: text as it was written, and anything long cut off."""
    text = value if isinstance(value, str) and value else repr(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
