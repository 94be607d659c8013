"""Paths in config files: `~`, environment variables, and relative paths, which count from the file's own folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from .schema import SETTINGS
from .setting import PathKind

VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}|\$([A-Za-z_]\w*)|%([A-Za-z_]\w*)%")
"""An environment variable as shells on Linux and macOS write it, or as Windows does. All are read on every system."""

DEMO = "demo"
"""The name of the model, the images and the texts that come with the package."""

OF_MODELS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".ggml", ".onnx")
"""The endings of files of models. A name on the hub may have them in no part that counts here."""


@dataclass(frozen=True)
class FoundPath:
    """A path of a config file, as the run takes it.

    Attributes:
        path: the value for the setting.
        was_relative: whether the path was counted from the folder of the config file.
        unset: the names of environment variables in it that are not set; the path is then useless.
    """

    path: str
    was_relative: bool = False
    unset: tuple[str, ...] = ()


def find_path(written: str, folder: Path, kind: PathKind, environ: Mapping[str, str] | None = None) -> FoundPath:
    """Return the path that a text in a config file stands for.

    What exists in the folder under exactly this name is taken before a variable or a name on the hub is looked for in
    it, so that no name of a file is out of reach.

    Args:
        written: the value as it was written, without quotes.
        folder: the folder of the config file, absolute.
        kind: whether the value may be a name instead; `demo` is one for every setting.
        environ: the environment variables; None takes those of the process.
    """
    if written == DEMO:
        return FoundPath(written)
    if os.path.exists(folder / written):  # False for what is no possible name of a file, too
        return FoundPath(written) if _is_absolute(written) else FoundPath(_joined(folder, written), was_relative=True)
    variables = os.environ if environ is None else environ
    names = dict.fromkeys(next(filter(None, match.groups())) for match in VARIABLE.finditer(written))
    if unset := tuple(name for name in names if name not in variables):
        return FoundPath(written, unset=unset)
    text = VARIABLE.sub(lambda match: variables[next(filter(None, match.groups()))], written)
    text = os.path.expanduser(text)
    if _is_absolute(text) or text.startswith("~"):  # of a user that there is not, which is reported as a missing path
        return FoundPath(text)
    if kind == "path_or_name" and text == written and _is_name(text):
        return FoundPath(text)
    return FoundPath(_joined(folder, text), was_relative=True)


def counted_from(folder: Path, found: Mapping[str, str]) -> str:
    """Return the sentence for the user about relative paths.

    Args:
        folder: the folder that they were counted from.
        found: the path that was found for each setting.
    """
    listed = ", ".join(f"{name} = {path}" for name, path in found.items())
    text = f"Relative paths count from the folder of the config file, {folder}: {listed}."
    here = Path.cwd()
    elsewhere = [
        str(here / relative)
        for name, path in found.items()
        if name != "output_dir" and not os.path.exists(path)
        for relative in [os.path.relpath(path, folder)]
        if here != folder and os.path.exists(here / relative)
    ]
    if elsewhere:
        text += (
            f" The folder that you are in has {', '.join(elsewhere)}, which is not used; write it out if it is meant."
        )
    return text


def path_kind(name: str) -> PathKind:
    """Return whether the value of a setting is a path; "" for one that is not."""
    return SETTINGS[name].path if name in SETTINGS else ""


def read_path(name: str, value: Any) -> str | None:
    """Return the path that a setting was given, without quotes; None if it was given none."""
    read = SETTINGS[name].read(value)
    return read if isinstance(read, str) and read else None


def _joined(folder: Path, relative: str) -> str:
    return os.path.normpath(folder / relative)


def _is_absolute(text: str) -> bool:
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()


def _is_name(text: str) -> bool:
    """Return whether a text can only be owner/name on the hub, as it names no file and does not start with a dot."""
    from ..files.hub import is_repository_name  # imports tqdm, which nodes should not wait for at start

    return is_repository_name(text) and PurePosixPath(text).suffix.lower() not in OF_MODELS
