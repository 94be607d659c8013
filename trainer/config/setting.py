"""What widgets, documentation and error messages need to know of one field of the config."""

from __future__ import annotations

import types
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

Kind = Literal["integer", "number", "choice", "switch", "text"]


@dataclass(frozen=True)
class Setting:
    """One field of the config.

    Attributes:
        kind: integer, number (float), choice, switch (bool) or text.
        may_be_auto: whether the run can find a value itself: None in the config, absent or `auto` in YAML,
            `auto_number` in a number widget.
        minimum, maximum: limits of a number that is not auto; `minimum_excluded` when it must lie above it.
        step: how far one click on a number widget goes.
        choices: the values of a choice, `auto` first when it may be auto.
        aliases: other trainers' names of the key. value_aliases: other spellings of the value.
        packages: what has to be installed for a choice, by the name pip knows.
    """

    name: str
    title: str
    description: str
    group: str
    advanced: bool
    kind: Kind
    default: Any
    may_be_auto: bool
    minimum: float | None = None
    minimum_excluded: bool = False
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    value_aliases: tuple[tuple[str, str], ...] = ()
    multiline: bool = False
    packages: tuple[tuple[str, str], ...] = ()

    @property
    def is_number(self) -> bool:
        return self.kind in ("integer", "number")

    @property
    def widget_default(self) -> Any:
        """The default as a widget shows it: `auto_number` for an automatic number, `auto` for an automatic choice."""
        if self.default is not None:
            return self.default
        if self.is_number:
            return int(self.auto_number) if self.kind == "integer" else float(self.auto_number)
        return "auto" if self.kind == "choice" else ""

    @property
    def auto_number(self) -> int:
        """What stands for auto in a number widget: 0, or -1 where 0 is a value of its own (no warmup, no dropout)."""
        return -1 if self.minimum == 0 and not self.minimum_excluded else 0

    def missing_package(self, choice: Any) -> str | None:
        """The package that a choice needs, where it is not installed."""
        package = dict(self.packages).get(choice)
        if package is None or find_spec(package.replace("-", "_")) is not None:
            return None
        return package

    @property
    def offered(self) -> list[str]:
        """The choices that can be used on this machine."""
        return [choice for choice in self.choices if self.missing_package(choice) is None]

    @property
    def widget_minimum(self) -> float | None:
        """Lowest value of a number widget: the one for auto where there is one."""
        return self.auto_number if self.may_be_auto else self.minimum

    @property
    def expected(self) -> str:
        """Which values are valid, to follow the words "must be"."""
        auto = ", or auto" if self.may_be_auto else ""
        if self.is_number:
            what = "a whole number" if self.kind == "integer" else "a number"
            lower = (
                f"above {_plain(self.minimum)} up to" if self.minimum_excluded else f"from {_plain(self.minimum)} to"
            )
            return f"{what} {lower} {_plain(self.maximum)}{auto}"
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        return "true or false" if self.kind == "switch" else "text"

    def read(self, value: Any) -> Any:
        """Turns a value as people and YAML parsers write it into what pydantic checks against the field.

        `auto` and an empty text become None where that means auto, numbers may be texts (`2e-4`, `1e3`), a
        list of prompts becomes lines, one of numbers a text with commas. What cannot be read is handed on as it
        is, for pydantic to refuse.
        """
        if isinstance(value, str):
            value = value.strip()
            if self.may_be_auto and value.lower() in ("auto", ""):
                return None if self.default is None else "auto"
        if self.is_number:
            return _read_number(value, whole=self.kind == "integer")
        if self.kind == "choice" and isinstance(value, str | bool):
            word = str(value).lower()
            return dict(self.value_aliases).get(word, word)
        if self.kind == "text":
            if self.default is None and value == "":
                return None
            if value is None:
                return self.default
            if isinstance(value, int | float) and not isinstance(value, bool):
                return str(value)
            if isinstance(value, list | tuple):
                if self.multiline and all(isinstance(item, str) for item in value):
                    return "\n".join(value)
                if all(str(item).isdigit() for item in value):
                    return ", ".join(map(str, value))
        return value


def setting(
    default: Any,
    title: str,
    description: str,
    *,
    group: str,
    advanced: bool = False,
    step: float | None = None,
    aliases: tuple[str, ...] = (),
    value_aliases: dict[str, str] | None = None,
    multiline: bool = False,
    packages: dict[str, str] | None = None,
    **limits: Any,
) -> Any:
    """A field of a config class, with what `Setting` needs to know of it; `limits` are pydantic's (ge, gt, le)."""
    extra: dict[str, Any] = {
        "group": group,
        "advanced": advanced,
        "step": step,
        "aliases": list(aliases),
        "value_aliases": value_aliases or {},
        "multiline": multiline,
        "packages": packages or {},
    }
    return Field(default, title=title, description=description, json_schema_extra=extra, **limits)


def describe_settings(model: type[BaseModel]) -> dict[str, Setting]:
    """Reads the settings, in order, from the fields of a config class."""
    return {name: _describe(name, field) for name, field in model.model_fields.items()}


def _describe(name: str, field: FieldInfo) -> Setting:
    annotation, optional = _without_none(field.annotation)
    literal = get_origin(annotation) is Literal
    kinds: dict[Any, Kind] = {int: "integer", float: "number", bool: "switch", str: "text"}
    kind: Kind = "choice" if literal else kinds[annotation]
    choices = tuple(get_args(annotation)) if literal else ()
    if literal and optional:
        choices = ("auto", *choices)
    limits = {
        name: getattr(item, name) for item in field.metadata for name in ("ge", "gt", "le") if hasattr(item, name)
    }
    extra = field.json_schema_extra
    if not isinstance(extra, dict):
        raise TypeError(f"the field {name} has no json_schema_extra")
    facts: dict[str, Any] = dict(extra)
    return Setting(
        name=name,
        title=field.title or name,
        description=field.description or "",
        group=facts["group"],
        advanced=facts["advanced"],
        kind=kind,
        default=field.default,
        may_be_auto="auto" in choices or (optional and kind != "text"),
        minimum=limits.get("gt", limits.get("ge")),
        minimum_excluded="gt" in limits,
        maximum=limits.get("le"),
        step=facts["step"],
        choices=choices,
        aliases=tuple(facts["aliases"]),
        value_aliases=tuple(facts["value_aliases"].items()),
        multiline=facts["multiline"],
        packages=tuple(facts["packages"].items()),
    )


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        (inner,) = (part for part in get_args(annotation) if part is not type(None))
        return inner, True
    return annotation, False


def _read_number(value: Any, *, whole: bool) -> Any:
    if isinstance(value, bool):
        return str(value)  # pydantic would take true for 1
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                return value
    if whole and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _plain(limit: float | None) -> str:
    return "any" if limit is None else f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"
