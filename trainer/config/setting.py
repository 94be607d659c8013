"""The description of a config field that widgets, documentation and error messages are generated from."""

from __future__ import annotations

import types
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

INVISIBLE = {ord(letter): None for letter in "\u200b\u2060\ufeff\u00ad"}
"""Letters that are not seen (zero-width spaces, soft hyphens, byte order marks), as `str.translate` removes them."""

_QUOTES = ("\u201c\u201d", "\u201e\u201c", "\u201e\u201d", "\u2018\u2019", "\u00ab\u00bb", "\u300c\u300d", '""', "''")
"""Quotes that word processors, phones and file managers put around a text, opening and closing."""

TaskType = Literal["text-to-image", "text-generation"]
"""What the model that is trained makes: images or texts."""

OF_IMAGES, OF_TEXTS = ("captions", "images", "objective"), ("text",)
"""The groups whose settings belong to one task, unless a setting names its task itself."""

AUTO_NUMBER = -1
"""The number that stands for auto in a number widget. No setting that may be auto has it as a value."""

Kind = Literal["integer", "number", "choice", "switch", "text"]

PathKind = Literal["", "path", "path_or_name"]


@dataclass(frozen=True)
class Setting:
    """The description of one field of the config.

    Attributes:
        name: the key of the setting.
        title: a short label for the widget.
        description: the tooltip of the widget.
        group: the node that has its widget: main (the node that configures a training of this task), dataset (the one
            that loads its dataset), or one of the nodes for options; run for settings that have no widget.
        kind: the type of the value: integer, number (float), choice, switch (bool) or text.
        default: the default value; None stands for auto or, for text, for no value.
        may_be_auto: whether the run can choose the value itself, which is None in the config, absent or `auto` in
            YAML, and `AUTO_NUMBER` in a number widget.
        minimum: the lowest valid number, or its exclusive lower bound if `minimum_excluded` is set.
        minimum_excluded: whether a number must be above `minimum`.
        maximum: the highest valid number.
        step: the increment of a number widget.
        choices: the valid values of a choice, `auto` first if the run can choose.
        aliases: the names that other trainers use for the key.
        value_aliases: pairs of another spelling of a value and the value.
        multiline: whether a text may have several lines.
        packages: pairs of a choice and the package, by its name on PyPI, that it needs.
        task: the only task that the setting has a meaning for; None for a setting of all tasks.
        instead: what takes the place of the setting in the other task, as a sentence without a full stop, or "".
        path: whether the value names a file or a folder: always, or unless it is a name (`demo`, or owner/name on the
            Hugging Face hub); "" for a value that is no path.
        share: the setting that says the same as a fraction of all steps, or "".
    """

    name: str
    title: str
    description: str
    group: str
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
    task: TaskType | None = None
    instead: str = ""
    path: PathKind = ""
    share: str = ""

    @property
    def is_number(self) -> bool:
        """Whether the value is a number, whole or not."""
        return self.kind in ("integer", "number")

    @property
    def widget_default(self) -> Any:
        """The default value of the widget: `AUTO_NUMBER` for a number on auto, `auto` for a choice on auto."""
        if self.default is not None:
            return self.default
        if self.is_number:
            return AUTO_NUMBER if self.kind == "integer" else float(AUTO_NUMBER)
        return "auto" if self.kind == "choice" else ""

    def missing_package(self, choice: Any) -> str | None:
        """Return the package that a choice needs, or None if it is installed or the choice needs none."""
        package = dict(self.packages).get(choice)
        if package is None or find_spec(package.replace("-", "_")) is not None:
            return None
        return package

    @property
    def offered(self) -> list[str]:
        """The choices whose packages are installed."""
        return [choice for choice in self.choices if self.missing_package(choice) is None]

    @property
    def expected(self) -> str:
        """The description of the valid values, as a phrase that follows "must be"."""
        auto = ", or auto" if self.may_be_auto else ""
        if self.is_number:
            what = "a whole number" if self.kind == "integer" else "a number"
            lower = (
                f"above {_plain(self.minimum)} and up to"
                if self.minimum_excluded
                else f"from {_plain(self.minimum)} to"
            )
            share = ", a share of all steps such as 10%" if self.share else ""
            return f"{what} {lower} {_plain(self.maximum)}{share}{auto}"
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        return "true or false" if self.kind == "switch" else "text"

    def read(self, value: Any) -> Any:
        """Convert a value as people and YAML parsers write it into one that pydantic can validate.

        `auto` and empty text become None where they mean auto, numbers may be text (`2e-4`, `1e3`), a list of prompts
        becomes lines, and a list of numbers becomes comma-separated text. A value that cannot be converted is returned
        unchanged, for pydantic to reject.
        """
        if isinstance(value, str):
            value = value.strip()
            if not self.multiline:
                value = _unquoted(value.translate(INVISIBLE).strip())
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
    step: float | None = None,
    aliases: tuple[str, ...] = (),
    value_aliases: dict[str, str] | None = None,
    multiline: bool = False,
    packages: dict[str, str] | None = None,
    task: TaskType | Literal["all"] | None = None,
    instead: str = "",
    path: PathKind = "",
    share: str = "",
    **limits: Any,
) -> Any:
    """Declare a field of a config class, with the details that become a `Setting`.

    Args:
        task: the only task that the setting has a meaning for, or `all`; None leaves it to the group.
        limits: pydantic's limits of a number: `ge`, `gt` and `le`.
    """
    extra: dict[str, Any] = {
        "group": group,
        "step": step,
        "aliases": list(aliases),
        "value_aliases": value_aliases or {},
        "multiline": multiline,
        "packages": packages or {},
        "task": task or _task_of_group(group),
        "instead": instead,
        "path": path,
        "share": share,
    }
    return Field(default, title=title, description=description, json_schema_extra=extra, **limits)


def describe_settings(model: type[BaseModel]) -> dict[str, Setting]:
    """Return the settings of a config class by name, in the order of its fields."""
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
        task=None if facts["task"] == "all" else facts["task"],
        instead=facts["instead"],
        path=facts["path"],
        share=facts["share"],
    )


def _task_of_group(group: str) -> TaskType | Literal["all"]:
    if group in OF_IMAGES:
        return "text-to-image"
    return "text-generation" if group in OF_TEXTS else "all"


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        (inner,) = (part for part in get_args(annotation) if part is not type(None))
        return inner, True
    return annotation, False


def _unquoted(text: str) -> str:
    """Return a text without quotes around the whole of it."""
    if len(text) > 2 and f"{text[0]}{text[-1]}" in _QUOTES and not {text[0], text[-1]} & {*text[1:-1]}:
        return text[1:-1].strip()
    return text


def _read_number(value: Any, *, whole: bool) -> Any:
    if isinstance(value, bool):
        return str(value)  # pydantic would accept true as 1
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
