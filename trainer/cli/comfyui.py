"""Base models that ComfyUI's loaders open: which they are, and the start of a command in ComfyUI's own Python.

Imports nothing but the standard library at its top, because the Python that a command is typed with may have nothing
else.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..doctor.comfyui import find_comfyui, python_of
from ..doctor.requirements import FOLDER
from ..errors import CrucibleError
from .display import display

if TYPE_CHECKING:
    from ..config import TrainingConfig
    from ..models.base import BaseModel

STARTED = "CRUCIBLE_STARTED_IN_COMFYUI"
"""The environment variable that says that this process was started by another one in ComfyUI's Python, so that it does
not start a further one."""

BECOMES = os.name == "posix"
"""Whether a process can become another program; on Windows, exec would end it and leave the other one behind."""


def enter_comfyui(options: argparse.Namespace) -> None:
    """Start the command again in ComfyUI's Python if ComfyUI opens its base model there; otherwise return.

    On POSIX systems this process becomes the other one, and keeps its id; on Windows it waits for it and ends with its
    status. The environment stays, so that launchers of several processes work.

    Args:
        options: the options of a command that reads a config file or has `base_model`; `arguments` are those that were
            typed. If the command needs no packages beside those of ComfyUI, its `needs` are changed.

    Raises:
        CrucibleError: the config asks for ComfyUI, and there is none.
    """
    comfyui = find_comfyui()
    is_started = bool(os.environ.get(STARTED))
    if is_started:
        options.needs = ()
    if find_spec("yaml") is None or find_spec("pydantic") is None:
        reason = "this Python lacks the packages that read a config file"
        if comfyui is None or is_started:
            return  # `require_packages` says what to install
    else:
        config = _config(options)
        if config is None or not opened_by_comfyui(config):
            return
        reason = f"ComfyUI's loaders open base_model = {config.base_model}"
    if is_started:
        return
    assert comfyui is not None
    python = python_of(comfyui)
    if python is not None:
        _say(f"Running in ComfyUI's Python ({python}), because {reason} (ComfyUI is in {comfyui}).")
        _become(python, options.arguments)
    _say(f"Running in this Python, which is taken for that of the ComfyUI in {comfyui}, because {reason}.")
    options.needs = ()


def _config(options: argparse.Namespace) -> TrainingConfig | None:
    """Return the config that the options name, or one with their base model.

    None if it cannot be read, which the command itself reports.
    """
    from ..config import parse_config
    from .config_options import configs_of, read_config_of

    try:
        if "base_model" in options:
            return parse_config({"base_model": options.base_model})
        if len(configs_of(options)) > 1:
            return None  # each is trained by a process of its own
        return read_config_of(options)[0]
    except CrucibleError:
        return None


def opened_by_comfyui(config: TrainingConfig) -> bool:
    """Return whether ComfyUI's loaders open the base model of a config, as `loader` says or by themselves.

    Raises:
        CrucibleError: `loader` asks for ComfyUI, and there is none.
    """
    if config.task_type != "text-to-image" or config.loader == "diffusers" or config.base_model is None:
        return False
    if config.loader == "auto":
        return is_model_file(config.base_model) and find_comfyui() is not None
    if find_comfyui() is None:
        raise CrucibleError(
            "loader is comfyui, but no ComfyUI was found, so nothing opens the base model: COMFYUI_PATH "
            f"{_about_path()}, and this pack is not in the custom_nodes folder of one. Set COMFYUI_PATH to the folder "
            "with ComfyUI's main.py, or set loader to auto."
        )
    return True


def _about_path() -> str:
    named = os.environ.get("COMFYUI_PATH")
    return f"is {named}, where no main.py is" if named else "is not set"


def is_model_file(base_model: str) -> bool:
    """Return whether a base model is a single file rather than a folder or a hub id."""
    from ..formats.header import ENDINGS

    path = Path(base_model).expanduser()
    return path.is_file() or (base_model.lower().endswith(ENDINGS) and not path.is_dir())


def refuse_unused_files(config: TrainingConfig) -> None:
    """Refuse files that belong to a base model in a single file, where it is none or diffusers opens it.

    Raises:
        CrucibleError: such files are set, and would not be used.
    """
    given = [name for name in ("text_encoders", "clip_type", "vae") if getattr(config, name) is not None]
    if not given or config.base_model is None:
        return
    if not is_model_file(config.base_model):
        why = f"base_model = {config.base_model} is no single file and has these parts itself"
        remedy = f"Remove {'them' if len(given) > 1 else 'it'}, or set base_model to a .safetensors file."
    elif not opened_by_comfyui(config):
        why = (
            f"diffusers opens base_model = {config.base_model}, and takes what the file lacks from the folder of its "
            "name"
        )
        remedy = "Put the parts there, or let ComfyUI open the file (COMFYUI_PATH, loader: comfyui)."
    else:
        return
    be, they = ("are", "they") if len(given) > 1 else ("is", "it")
    raise CrucibleError(
        f"{' and '.join(given)} {be} set, but {why}, so {they} would be ignored. {remedy}",
        "settings",
    )


def open_with_comfyui(config: TrainingConfig, check_interrupt: Callable[[], None]) -> BaseModel:
    """Open the base model of a config with ComfyUI's loaders, in this process.

    Raises:
        CrucibleError: ComfyUI cannot be imported, or cannot open the files.
    """
    from ..models.comfyui.starting import start_comfyui

    comfyui = find_comfyui()
    assert comfyui is not None
    start_comfyui(comfyui)
    from ..models.comfyui.model_files import open_files

    assert config.base_model is not None
    say = display().say
    return open_files(config.base_model, config.text_encoder_files, config.clip_type, config.vae, check_interrupt, say)


def _say(text: str) -> None:
    """Tell the user something once, whatever the number of processes, beside the output of a command."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


def _become(python: Path, arguments: Sequence[str]) -> None:
    command = [str(python), str(FOLDER), *arguments]
    environment = {**os.environ, STARTED: "1"}
    sys.stdout.flush()
    sys.stderr.flush()
    if BECOMES:
        os.execve(python, command, environment)  # noqa: S606 (this very program)
    raise SystemExit(_run_as_child(command, environment))


def _run_as_child(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a command to its end and return its exit status; a Ctrl-C in the terminal reaches it by itself."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = subprocess.Popen(command, env=environment)  # noqa: S603 (this very program)
        other = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        try:
            return child.wait()
        finally:
            signal.signal(signal.SIGTERM, other)
    finally:
        signal.signal(signal.SIGINT, before)
