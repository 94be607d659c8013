"""Settings that have no meaning for the task of a config: those of images for a language model, and the reverse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .schema import SETTINGS, TrainingConfig

IMAGE_PURPOSES = ("character", "style", "object", "concept")
"""The purposes that say what images show."""

TRUE_OF_TEXTS: dict[str, Any] = {"caption_dropout_rate": 0.0, "loss_weighting": "none", "sample_cfg": 1.0}
"""Values of settings of images that change nothing and hold for every language model anyway."""

_MEANT_FOR = {"text-to-image": "images", "text-generation": "language models"}


def of_other_task(config: TrainingConfig, written_as: Mapping[str, str]) -> list[tuple[tuple[str, ...], str]]:
    """Return what was set that only has a meaning for the other task.

    Only values that differ from the defaults count: a node has a value for each of its widgets, and a file that was
    written by a program may list all settings.

    Args:
        config: the settings.
        written_as: the key under which the user wrote each setting, for those that were written.

    Returns:
        For each of them the name of the setting, and the message for the user.
    """
    found: list[tuple[tuple[str, ...], str]] = []
    for name, key in written_as.items():
        setting, value = SETTINGS[name], getattr(config, name)
        if setting.task in (None, config.task_type) or value == setting.default:
            continue
        if config.task_type == "text-generation" and TRUE_OF_TEXTS.get(name) == value:
            continue
        found.append(((name,), f"{key} = {_shown(value)} {_other(setting.task, config, written_as, setting.instead)}"))
    if config.task_type == "text-generation" and config.purpose in IMAGE_PURPOSES and "purpose" in written_as:
        text = (
            f"{written_as['purpose']} = {config.purpose} says what images show, but task_type is text-generation; "
            "remove it, or set it to quick_test for a short run that shows whether everything works"
        )
        found.append((("purpose",), text))
    return found


def _other(task: str | None, config: TrainingConfig, written_as: Mapping[str, str], instead: str) -> str:
    only = f"only has a meaning for {_MEANT_FOR[str(task)]}, but "
    remove = f"{instead}, so remove it" if instead else "remove it"
    if "task_type" in written_as:
        return f"{only}{written_as['task_type']} is {config.task_type}; {remove}"
    add = f"set task_type: {task} if that is what you train; otherwise {remove}"
    return f"{only}this run trains {_MEANT_FOR[config.task_type]}, because task_type is not set; {add}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("\n", ", ")
