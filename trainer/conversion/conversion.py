"""A config of another program on its way to our settings, with everything that was lost on the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PureWindowsPath
from typing import Any

from ..config.foreign_keys import BY_ITSELF, ELSEWHERE
from ..config.schema import SETTINGS
from ..config.validation import meant_by, quoted

OFF = ("", 0, 0.0, False, None, "false", "none", "0", "0.0")
"""Values by which a program switches something off; lists and sections are off if they are empty."""

_SECRET = re.compile(r"(^|[_.])(token|secret|password|api_?key)$", re.IGNORECASE)


@dataclass
class Conversion:
    """What a config of another program becomes.

    Attributes:
        program: the program and the kind of file, as a user would call it.
        source: the names of the files.
        name: the name for the file that is written, without extension.
        settings: our settings, by key.
        reasons: where a setting comes from, by key: the other program's key, or its default.
        lost: what has no counterpart here, as clauses that start with the key.
        differs: what means something else here.
        guessed: what the file leaves open, and was decided.
        by_itself: the keys of what is done here without a setting.
        off: the keys of what is switched off there.
        housekeeping: the keys that only concern how the other program works.
        given: the names of all keys of the files.
    """

    program: str
    source: str
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    by_itself: list[str] = field(default_factory=list)
    off: list[str] = field(default_factory=list)
    housekeeping: list[str] = field(default_factory=list)
    given: tuple[str, ...] = ()

    @property
    def unsaid(self) -> list[str]:
        """The keys that none of the above names: they were taken together with others, or have no effect there."""
        said = [*self.settings, *self.reasons.values(), *self.lost, *self.differs, *self.guessed]
        said += [*self.by_itself, *self.off, *self.housekeeping]
        names = set(re.findall(r"\w+", "\n".join(said)))
        return [key for key in dict.fromkeys(self.given) if key not in names]

    def set(self, name: str, value: Any, reason: str) -> None:
        """Give a setting a value, with the key that it comes from or another reason."""
        read = SETTINGS[name].read(value)
        if SETTINGS[name].path and isinstance(read, str) and not PureWindowsPath(read).is_absolute():
            read = read.replace("\\", "/")  # a relative path of Windows, which is then one everywhere
        self.settings[name], self.reasons[name] = read, "" if reason == name else reason

    def default(self, name: str, value: Any) -> None:
        """Give a setting the value that the other program takes if its file says nothing."""
        if name not in self.settings:
            self.set(name, value, "the default there")

    def lose(self, key: str, value: Any, why: str = "not offered here") -> None:
        """Note a key without a counterpart; what is switched off is no loss."""
        if is_off(value):
            self.off.append(key)
        elif why in BY_ITSELF:
            self.by_itself.append(key)
        else:
            self.lost.append(f"{_shown(key, value)}: {why}")

    def differ(self, key: str, value: Any, how: str) -> None:
        """Note a key that means something else here."""
        self.differs.append(f"{_shown(key, value)}: {how}")

    def guess(self, text: str) -> None:
        """Note something that the file leaves open."""
        self.guessed.append(text)

    def tidy(self, key: str, value: Any = None) -> None:
        """Note a key that does not concern what is trained."""
        self.housekeeping.append(key)


Rule = Callable[[Conversion, str, Any], None]
"""What becomes of one key: called with the conversion, the key and its value."""


def is_off(value: Any) -> bool:
    """Return whether a value switches something off, or sets nothing."""
    if isinstance(value, list | tuple | Mapping):
        return not value
    return (value.strip().lower() if isinstance(value, str) else value) in OFF


def is_on(value: Any) -> bool:
    """Return whether a switch is on, however it was written."""
    return (
        value is True or (isinstance(value, str) and value.strip().lower() in ("true", "yes", "on", "1")) or value == 1
    )


def as_number(value: Any) -> float | None:
    """Return a value as a number; None if it is none."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def plain_number(value: float) -> int | float:
    """Return a number without a fraction as a whole one."""
    return int(value) if float(value).is_integer() else float(value)


def same(name: str) -> Rule:
    """Return the rule for a key that is one of our settings, unless it is empty."""

    def rule(conversion: Conversion, key: str, value: Any) -> None:
        if value is None or value == "":
            conversion.off.append(key)
        else:
            conversion.set(name, value, key)

    return rule


def flag(name: str) -> Rule:
    """Return the rule for a switch that is one of our settings."""
    return lambda conversion, key, value: conversion.set(name, is_on(value), key)


def clipping(conversion: Conversion, key: str, value: Any) -> None:
    """Translate the largest norm of gradients; programs switch clipping off with 0."""
    if is_off(value):
        conversion.set("max_grad_norm", SETTINGS["max_grad_norm"].maximum, f"{key} = {value} clips nothing")
    else:
        conversion.set("max_grad_norm", value, key)


def lost(why: str = "not offered here", *without_meaning: Any) -> Rule:
    """Return the rule for a key without counterpart.

    Args:
        why: the reason, or the nearest thing that there is.
        without_meaning: values that are the other program's defaults, and mean the same as here.
    """

    def rule(conversion: Conversion, key: str, value: Any) -> None:
        if any(value == one or str(value) == str(one) for one in without_meaning):
            conversion.off.append(key)
        else:
            conversion.lose(key, value, why)

    return rule


def housekeeping(conversion: Conversion, key: str, value: Any) -> None:
    """Note a key that does not concern what is trained, whatever its value."""
    conversion.tidy(key, value)


def choice(name: str, words: Mapping[str, Any], nearest: Any, *, otherwise: str) -> Rule:
    """Return the rule for a key with a list of words.

    Args:
        name: our setting.
        words: our value of each word in lower case.
        nearest: our value for all other words.
        otherwise: what is said about other words.
    """

    def rule(conversion: Conversion, key: str, value: Any) -> None:
        word = str(value).strip().lower()
        if value is None or word == "":
            conversion.off.append(key)
        elif word in words:
            conversion.set(name, words[word], key)
        else:
            conversion.set(name, nearest, f"nearest to {key} = {value}")
            conversion.differ(key, value, otherwise)

    return rule


def apply(conversion: Conversion, rules: Mapping[str, Rule], values: dict[str, Any]) -> None:
    """Apply the rules to the keys that they know, and remove these from the values."""
    for key in [key for key in values if key in rules]:
        rules[key](conversion, key, values.pop(key))


def finish(conversion: Conversion, values: Mapping[str, Any]) -> None:
    """Answer the keys that no rule of the program knows: by the names that every config file may use, or as unknown."""
    for key, value in values.items():
        last = key.rsplit(".", 1)[-1]
        meant = meant_by(last, value)
        if is_off(value):
            conversion.off.append(key)
        elif meant == {}:
            conversion.by_itself.append(key)
        elif meant is not None:
            for name in meant.keys() - conversion.settings.keys():
                conversion.set(name, meant[name], key)
        else:
            conversion.lose(key, value, ELSEWHERE.get(last, "LoRA Crucible does not know this key"))


def flattened(values: Mapping[str, Any], prefix: str = "", *, keep: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a nested config with the path of each value as its key, joined by dots.

    Args:
        keep: the paths of sections that stay as they are.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path not in keep and value:
            flat |= flattened(value, f"{path}.", keep=keep)
        else:
            flat[path] = value
    return flat


def names_of_keys(value: Any) -> list[str]:
    """Return the names of all keys in nested content that hold a value and not a section."""
    if isinstance(value, Mapping):
        names = []
        for key, one in value.items():
            inner = names_of_keys(one)
            names += inner if inner and isinstance(one, Mapping | list) else [str(key)]
        return names
    return [name for one in value for name in names_of_keys(one)] if isinstance(value, list | tuple) else []


def _shown(key: str, value: Any) -> str:
    if _SECRET.search(key):
        return f"{key} = …"
    if isinstance(value, str) and "\n" in value:
        value = value.strip().splitlines()[0] + "…"
    return key if value is True else f"{key} = {quoted(value)}"
