"""Which task a config file is of: the one that it names, or the one that its model and data leave no doubt about."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..config.schema import SETTINGS
from ..config.setting import TaskType
from ..config.validation import meant_by
from ..config.yaml_file import WrittenSettings
from ..errors import CrucibleError

TEXT_FILES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt", ".md")
"""The endings of files that hold rows of texts, if they are named themselves."""

LANGUAGE_CLASSES = ("ForCausalLM", "LMHeadModel")
"""The ends of the names of transformers' classes for language models."""

LANGUAGE_FILES = (".gguf", ".ggml")
"""The endings of files that hold language models, which are refused later with what to use instead."""


def with_task(written: WrittenSettings) -> tuple[WrittenSettings, str]:
    """Add the task to settings that do not name it, if the model or the data can only be of language models.

    Returns:
        The settings, and a sentence for the user if the task was added, or "".
    """
    if _value(written, "task_type") is not None:
        return written, ""
    reason = _language_model(_value(written, "base_model")) or _rows_of_texts(_value(written, "train_data_dir"))
    if not reason:
        return written, ""
    text = f"task_type is not set. It is taken as text-generation, because {reason}."
    return written.replaced({"task_type": "text-generation"}), text


def require_task(task: TaskType, base_model: str, train_data_dir: str) -> None:
    """Check that neither the model nor the data can only be of the other task.

    Raises:
        CrucibleError: one of them is of the other task.
    """
    of_other_task = _of_images if task == "text-generation" else _of_texts
    if found := of_other_task(base_model, train_data_dir):
        raise CrucibleError(found)


def is_language_model(base_model: str) -> bool:
    """Return whether a base model makes texts: its files say so, or it is a name on the hub."""
    if _language_model(base_model):
        return True
    return not Path(base_model).expanduser().exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", base_model) is not None


def _of_texts(base_model: str, train_data_dir: str) -> str:
    if reason := _language_model(base_model):
        return (
            f"task_type is text-to-image, but {reason}, so no image could be trained. To train the language model, "
            "write task_type: text-generation; to train images, set base_model to an image model in diffusers' format."
        )
    if reason := _rows_of_texts(train_data_dir):
        return (
            f"task_type is text-to-image, but {reason}. Set train_data_dir to a folder of images, or write task_type: "
            "text-generation and set base_model to a language model to train on these texts."
        )
    return ""


def _of_images(base_model: str, train_data_dir: str) -> str:
    model, data = Path(base_model).expanduser(), Path(train_data_dir).expanduser()
    if (model / "model_index.json").is_file():
        return (
            f"task_type is text-generation, but base_model = {base_model} is an image model in diffusers' format (it "
            "has a model_index.json), which writes no texts. Set base_model to the folder of a language model, or "
            "write task_type: text-to-image to train images."
        )
    if data.is_dir() and _is_folder_of_images(data):
        return (
            f"task_type is text-generation, but train_data_dir = {train_data_dir} is a folder of images, and its text "
            "files are their captions, so there are no rows to train. Set train_data_dir to a file or folder of texts "
            "(.jsonl, .json, .csv or .txt), or write task_type: text-to-image to train the images."
        )
    return ""


def _language_model(base_model: Any) -> str:
    """Return how a base model is known to be a language model, as a clause, or ""."""
    if not isinstance(base_model, str) or base_model == "demo":
        return ""
    path = Path(base_model).expanduser()
    if path.suffix.lower() in LANGUAGE_FILES or ".ggml" in path.name.lower():
        return f"base_model = {base_model} is a file of a language model"
    try:
        classes = json.loads((path / "config.json").read_text(encoding="utf-8"))["architectures"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    found = [str(name) for name in classes or () if str(name).endswith(LANGUAGE_CLASSES)]
    return f"base_model = {base_model} is a language model ({found[0]})" if found else ""


def _rows_of_texts(train_data_dir: Any) -> str:
    """Return how data are known to be rows of texts, as a clause, or ""."""
    if not isinstance(train_data_dir, str):
        return ""
    path = Path(train_data_dir).expanduser()
    if path.suffix.lower() in TEXT_FILES and path.is_file():
        return f"train_data_dir = {train_data_dir} is a file, which can only hold texts"
    if path.is_dir() and any(path.glob("*.jsonl")) and not any(map(_is_image, path.rglob("*"))):
        return f"train_data_dir = {train_data_dir} is a folder of texts without any image"
    return ""


def _is_folder_of_images(folder: Path) -> bool:
    """Return whether a folder has images, and every text file in it belongs to one or lists their captions."""
    names = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    images = {path.stem for path in names if _is_image(path)}
    texts = [path for path in names if path.suffix.lower() in TEXT_FILES]
    return bool(images) and all(path.stem in images or path.stem == "metadata" for path in texts)


def _is_image(path: Path) -> bool:
    from ..data.images.file_kinds import has_image_name

    return has_image_name(path)


def _value(written: WrittenSettings, name: str) -> Any:
    """Return the value that was written for a setting under any of its names; None if there is none."""
    for key, value in written.values.items():
        meant = meant_by(key, value) or {}
        if name in meant:
            return SETTINGS[name].read(meant[name])
    return None
