"""Conversion between a node's widgets, YAML and configs: merging the former into a config, and writing it as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from . import (
    OF_OTHER_NODES,
    SETTINGS,
    Setting,
    TrainingConfig,
    from_widgets,
)
from .data_settings import OPEN_IN_DATASETS
from .setting import TaskType
from .validation import (
    KEYS,
    Problem,
    check_values,
    config_error,
    is_auto_widget,
    meant_by,
    quoted,
    read_names_of_layers,
)
from .yaml_file import read_settings

PLACEHOLDERS: dict[TaskType, dict[str, tuple[str, str]]] = {
    "text-to-image": {
        "base_model": ("path/to/a/model", "a .safetensors file, a folder in diffusers' format, or demo"),
        "train_data_dir": ("path/to/images", "the folder of the images and their captions, or demo"),
    },
    "text-generation": {
        "base_model": ("path/to/a/model", "the folder of the language model in transformers' format, or demo"),
        "train_data_dir": ("path/to/rows.jsonl", "a file or folder of rows, or demo"),
    },
}
"""The placeholders of each task, with a comment, for settings that only the user can know."""

CONFIGURED_BY: dict[TaskType, tuple[str, str]] = {
    "text-to-image": ("images", "Configure LoRA (Crucible)"),
    "text-generation": ("language models", "Configure Language LoRA (Crucible)"),
}
"""What is trained in each task, and the node that configures it."""


def from_widgets_and_yaml(widgets: Mapping[str, Any], text: str, task: TaskType = "text-to-image") -> TrainingConfig:
    """Build a config from a node's widgets and pasted YAML.

    A key in the YAML takes precedence over a widget that is on auto or at its default.

    Args:
        task: the task that the node configures, which the YAML may repeat.

    Raises:
        CrucibleError: the YAML cannot be read or is of the other task, a value is wrong, or a widget and the YAML
            disagree.
    """
    if not text.strip():
        return from_widgets({**widgets, "task_type": task})
    written = read_settings(text, "the YAML in config_yaml")
    said = {key: value for key, value in written.values.items() if not _leaves_open(key, value)}
    meant = {key: meant_by(key, value) or {} for key, value in said.items()}
    named = {name: value for settings in meant.values() for name, value in settings.items()}
    written_as = {name: key for key, settings in meant.items() for name in settings}
    read_names_of_layers(named, written_as)
    problems = list(written.problems)
    values: dict[str, Any] = {}
    if "task_type" in named:
        key = written_as["task_type"]
        if SETTINGS["task_type"].read(named["task_type"]) != task:
            problems.append(_of_other_task(key, named["task_type"], task))
        said = {other: value for other, value in said.items() if other != key}
    for name, value in widgets.items():
        if name not in named:
            values.update({} if is_auto_widget(name, value) else {name: value})
        elif not _agree(SETTINGS[name], value, named[name]):
            key, title = written_as[name], SETTINGS[name].title.lower()
            fight = f"{key} = {quoted(named[name])} in the YAML, but the widget {title} ({name}) is {quoted(value)}"
            setting = SETTINGS[name]
            default = "auto" if _leaves_open(name, setting.default) else quoted(setting.widget_default)
            problems.append(Problem((key,), f"{fight}; set the widget back to {default}, or remove the line"))
    config, wrong = check_values({**values, **said, "task_type": task})
    if config is None or problems:
        raise config_error([*wrong, *problems], source="config_yaml and the widgets", lines=written.lines)
    return config


def _of_other_task(key: str, written: Any, task: TaskType) -> Problem:
    """Report that the YAML names another task than that of the node, or one that there is not."""
    what, _ = CONFIGURED_BY[task]
    named = SETTINGS["task_type"].read(written)
    others = [node for other, (_, node) in CONFIGURED_BY.items() if other == named]
    remedy = f"use {others[0]} for this YAML, or remove the line" if others else "remove the line"
    return Problem((key,), f"{key} = {quoted(written)} in the YAML, but this node configures {what}; {remedy}")


def _leaves_open(key: str, value: Any) -> bool:
    """Return whether a value in YAML leaves its setting on auto."""
    setting = SETTINGS.get(KEYS.get(key, ""))
    return setting is not None and setting.may_be_auto and setting.read(value) in (None, "auto")


def _agree(setting: Setting, widget: Any, written: Any) -> bool:
    """Return whether a widget leaves a setting to the YAML or has the same value; wrong ones are reported elsewhere."""
    if widget == setting.widget_default:
        return True
    try:
        meant = [TrainingConfig.model_validate({setting.name: value}) for value in (widget, written)]
    except ValidationError:
        return True
    return meant[0] == meant[1]


def split_of_other_nodes(config: TrainingConfig) -> tuple[TrainingConfig, dict[str, Any]]:
    """Separate a config from the settings that other nodes decide.

    The task stays in the config. So do settings that a dataset may leave open; they decide if the dataset does not.

    Returns:
        The config without those settings, and the values that they had.
    """
    defaults = TrainingConfig()
    said = {
        name: getattr(config, name)
        for name in OF_OTHER_NODES
        if name not in (*OPEN_IN_DATASETS, "task_type") and getattr(config, name) != getattr(defaults, name)
    }
    return config.model_copy(update={name: getattr(defaults, name) for name in said}), said


def to_yaml(config: TrainingConfig, reasons: Mapping[str, str] | None = None, warning: str = "") -> str:
    """Write the settings that differ from the defaults as a config file that trains the same LoRA.

    Args:
        reasons: the reasons for values that are chosen automatically, which are added as comments.
        warning: a remark that is added as a comment at the top.
    """
    defaults, placeholders = TrainingConfig(), PLACEHOLDERS[config.task_type]
    lines = [f"# {warning}"] if warning else []
    for name in SETTINGS:
        value = getattr(config, name)
        if value is None and name in placeholders:
            path, comment = placeholders[name]
            lines.append(f"{name}: {path}  # {comment}")
        elif value != getattr(defaults, name):
            lines.append(yaml.safe_dump({name: value}, allow_unicode=True, width=10_000).rstrip())
    if reasons:
        lines += ["", "# Chosen automatically:", *(f"#   {name} = {reason}" for name, reason in reasons.items())]
    return "\n".join(lines) + "\n"
